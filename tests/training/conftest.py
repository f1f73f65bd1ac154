"""A tiny base model, tokenizer and data set, made once: what the tests of the whole path train on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.recipe.shipped import shipped_folder

WORDS = "the cat sat on a mat while rain fell over hills and rivers near towns where people sang old songs".split()  # noqa: SIM905
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with a ChatML template, trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def make_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return [{"prompt": text(2, 12), "chosen": text(1, 25), "rejected": text(1, 25)} for _ in range(count)]


@dataclass(frozen=True)
class Project:
    """A folder with a base model, data and a recipe, and a way to run it as a user would."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "INSPO_HUB_CACHE": str(self.folder / "cache"),
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def command(
        self, *arguments: str, output: str = "out", processes: int = 0, module: str = "inspo_hub.run"
    ) -> list[str]:
        launch = [sys.executable, "-m"]
        if processes:
            profile = shipped_folder() / "accelerate" / "cpu-gloo.yaml"
            launch += ["accelerate.commands.launch", "--config_file", str(profile)]
            launch += ["--num_processes", str(processes), "--main_process_port", "0", "-m"]
        return [*launch, module, str(self.recipe), "--output", str(self.folder / output), *arguments]

    def run(
        self, *arguments: str, output: str = "out", processes: int = 0, expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Runs the recipe in a process of its own and checks the exit code."""
        done = subprocess.run(
            self.command(*arguments, output=output, processes=processes),
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == expect, f"exit code {done.returncode}, not {expect}\n{done.stdout}\n{done.stderr}"
        return done

    def stop(self, output: str, after_step: int, how: signal.Signals, *arguments: str) -> int:
        """Starts a run, sends the signal once the step was logged, returns the exit code."""
        process = subprocess.Popen(
            self.command(*arguments, output=output),
            env=self.environment(),
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        log = self.folder / output / "metrics.jsonl"
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            if log.is_file() and f'"step": {after_step}, "split": "train"' in log.read_text():
                break
            time.sleep(0.005)
        process.send_signal(how)
        process.communicate(timeout=200)
        return process.returncode

    def records(self, output: str = "out") -> list[dict[str, Any]]:
        text = (self.folder / output / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


RECIPE = """\
version: 1
name: tiny
model: {id: ./base}
data:
  train: [{id: ./train.jsonl}]
  heldout: [{id: ./heldout.jsonl}]
  max_length: 256
alternative: {turn_text: again}
objective: {name: dpo, beta: 0.5}
conditioning: symmetric
train: {lr: 3e-3, pairs_per_step: 6, epochs: 1, log_every: 2, save_every: 2, tokens_per_microbatch: 800}
"""


def make_project(
    folder: Path, *, rows: int = 45, heldout: int = 5, recipe: str = RECIPE, tokenizer: Any = None
) -> Project:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or train_tokenizer([" ".join(WORDS)] * 4, 300)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_rows(folder / "train.jsonl", make_rows(rows))
    write_rows(folder / "heldout.jsonl", make_rows(heldout, seed=1))
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return Project(folder)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))
