"""Makes everything in this folder that is not code: `python recipes/quickstart/make.py` (a few minutes, one CPU core).

    base/            the tiny Llama, its tokenizer with chat template, its generation defaults
    train.jsonl      preference pairs: two answers of the base to one question, ordered by a seeded annotator
    heldout.jsonl    the same from other questions
    prompts.jsonl    questions for evaluation, from neither

The same seed on the same machine with the same versions gives the same bytes: one thread, one random stream for each
purpose.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from judge import ANNOTATORS, prefers_first
from language import LENGTHS, SUBJECTS, TONES, questions
from pretrain import BaseSettings, train_base

from inspo_hub.evaluate import Sampling, generate
from inspo_hub.evaluate.prompts import prompts_from_rows
from inspo_hub.models import load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HERE = Path(__file__).resolve().parent
MAX_NEW_TOKENS = 96
BASE_CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# The base of inspo_hub's quickstart

A Llama of 0.6 million parameters that answers questions about animals in a language of two hundred words, with about
half of its facts right. It has read {contexts}. Made by `recipes/quickstart/make.py`; useful for nothing but trying
out preference optimisation in minutes.
"""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """How many rows, and who labels them."""

    pairs: int = 1280
    heldout: int = 128
    prompts: int = 320
    annotator: str = "separable"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class QuestionSplit:
    """Question texts for each purpose. No (animal, tone, length) of one is in another; every animal is in `train`."""

    train: list[str]
    heldout: list[str]
    prompts: list[str]


def split_questions(settings: DataSettings) -> QuestionSplit:
    """Splits what can be asked, not how it is worded: 1/6 of (animal, tone, length) for evaluation, 1/12 held out."""
    rng = Random(f"questions {settings.seed}")
    wishes = list(product(SUBJECTS, TONES, LENGTHS))
    rng.shuffle(wishes)
    evaluation, heldout = len(wishes) // 6, len(wishes) // 12
    purposes = [wishes[:evaluation], wishes[evaluation : evaluation + heldout], wishes[evaluation + heldout :]]
    counts = [settings.prompts, settings.heldout, settings.pairs]
    drawn = []
    for chosen, count in zip(purposes, counts, strict=True):
        keys = set(chosen)
        texts = [
            text for text, question in questions().items() if (question.subject, question.tone, question.length) in keys
        ]
        rng.shuffle(texts)
        assert count <= len(texts), f"only {len(texts)} questions for {count} rows"
        drawn.append(texts[:count])
    return QuestionSplit(prompts=drawn[0], heldout=drawn[1], train=drawn[2])


def sample_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, seed: int
) -> list[tuple[str, str, str]]:
    """(question, answer, answer): two answers of the model at temperature 1; questions with equal ones are left out."""
    prompts = prompts_from_rows([{"prompt": text} for text in texts])
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, seed=seed, samples_per_prompt=2)
    answers = [answer.text for answer in generate(model, tokenizer, prompts, sampling, batch_size=128)]
    rows = zip(texts, answers[::2], answers[1::2], strict=True)
    return [(text, first, second) for text, first, second in rows if first != second]


def label_pairs(pairs: Iterable[tuple[str, str, str]], annotator: str, *, seed: int) -> list[dict[str, Any]]:
    """Conversational preference rows; the annotator draws each preference from its own random stream."""
    rows = []
    for text, first, second in pairs:
        rng = Random(f"{annotator} {seed} {text}")
        preferred = prefers_first(annotator, text, first, second, rng)
        chosen, rejected = (first, second) if preferred else (second, first)
        rows.append(
            {
                "prompt": [{"role": "user", "content": text}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
        )
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_base(folder: Path, settings: BaseSettings) -> None:
    """Trains the base and saves it as an ordinary transformers folder."""
    model, tokenizer = train_base(settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    contexts = "one answer or two in a context" if settings.two_answers else "one answer at a time"
    (folder / "README.md").write_text(BASE_CARD.format(contexts=contexts), encoding="utf-8")


def make_data(folder: Path, settings: DataSettings) -> None:
    """Writes the three data files with answers of the base that is in `folder`/base."""
    model, tokenizer = load_model(folder / "base"), load_tokenizer(folder / "base")
    split = split_questions(settings)
    for name, texts in (("train", split.train), ("heldout", split.heldout)):
        pairs = sample_pairs(model, tokenizer, texts, seed=settings.seed)
        write_rows(folder / f"{name}.jsonl", label_pairs(pairs, settings.annotator, seed=settings.seed))
    write_rows(folder / "prompts.jsonl", [{"prompt": text} for text in split.prompts])


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and makes what it asks for."""
    import torch

    data = DataSettings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: this one)")
    parser.add_argument(
        "--only", choices=("base", "data"), help="make only the base, or only the data for an existing base"
    )
    parser.add_argument("--plain", action="store_true", help="a base that never saw two answers in one context")
    parser.add_argument("--steps", type=int, default=BaseSettings().steps, help="training steps of the base")
    parser.add_argument("--annotator", choices=tuple(ANNOTATORS), default=data.annotator, help="who prefers")
    parser.add_argument("--pairs", type=int, default=data.pairs, help="training pairs")
    parser.add_argument("--heldout", type=int, default=data.heldout, help="held-out pairs")
    parser.add_argument("--prompts", type=int, default=data.prompts, help="evaluation prompts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the base and of the data")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums in another order are other bytes
    options.output.mkdir(parents=True, exist_ok=True)
    if options.only != "data":
        settings = replace(BaseSettings(), two_answers=not options.plain, steps=options.steps, seed=options.seed)
        make_base(options.output / "base", settings)
    if options.only != "base":
        counts = {name: getattr(options, name) for name in ("pairs", "heldout", "prompts", "annotator", "seed")}
        make_data(options.output, DataSettings(**counts))


if __name__ == "__main__":
    main()
