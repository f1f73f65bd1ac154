"""Runs that train an adapter: what they leave, which reference they take from where, resuming, merging, twins."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from inspo_hub.cli import main
from inspo_hub.recipe import load_recipe
from inspo_hub.workflow import run
from tests.training.conftest import RECIPE, Project, make_project
from tests.training.test_runs import assert_same_bits

# peft 0.21 asks transformers 5.23 for a property under its old name; resuming asks it again.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose runs happen in this process, into its own cache; the recipe trains an adapter of rank 4."""
    project = make_project(tmp_path_factory.mktemp("adapters"), recipe=RECIPE + "adapter: {r: 4}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPO_HUB_CACHE", str(project.folder / "cache"))
        yield project


def train(project: Project, output: str, *overrides: str) -> Path:
    folder = project.folder / output
    assert run(project.recipe, overrides, output=folder) == 0
    return folder


@pytest.fixture(scope="module")
def whole(here: Project) -> Project:
    train(here, "out")
    return here


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="inspo_hub")


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(40)[None]).logits


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "trained.json").read_text()))


def test_it_leaves_an_adapter_that_peft_loads_and_no_path_of_this_machine(
    whole: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    output = whole.folder / "out"
    names = {path.name for path in output.iterdir()}
    assert names >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "trained.json"}
    assert not names & {"model.safetensors", "config.json"}
    assert str(whole.folder) not in (output / "adapter_config.json").read_text()
    assert "library_name: peft" in (output / "README.md").read_text()
    monkeypatch.chdir(output)  # as the card's code is run
    model = AutoPeftModelForCausalLM.from_pretrained(".")
    with model.disable_adapter():
        base = logits(model)
    assert (logits(model) - base).abs().max() > 1e-3


def test_its_reference_is_the_base_and_it_starts_there(whole: Project) -> None:
    assert whole.records()[0]["plain_margin"] == pytest.approx(0, abs=1e-5)
    assert whole.records()[-1]["plain_margin"] != 0
    assert summary(whole.folder / "out")["reference"]["name"].startswith("base with the adapter off")


def test_rank_kind_and_the_whole_model_share_one_reference(whole: Project, caplog: pytest.LogCaptureFixture) -> None:
    kinds = {"dora": ["adapter.r=2", "adapter.use_dora=true"], "full": ["adapter=null"]}
    for output, overrides in kinds.items():
        caplog.clear()
        train(whole, output, *overrides, "train.max_steps=2", "conditioning=none")
        assert "45 rows, 45 of them cached" in caplog.text
        assert whole.records(output)[0]["plain_margin"] == pytest.approx(0, abs=1e-5)
    assert (whole.folder / "full" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "adapter", ["", pytest.param("adapter.use_dora=true", marks=pytest.mark.slow)], ids=["LoRA", "DoRA"]
)
def test_killed_it_goes_on_to_the_same_bits(whole: Project, adapter: str) -> None:
    arguments = ["--set", adapter] if adapter else []
    straight = "dora-whole" if adapter else "out"
    if adapter:
        train(whole, straight, adapter)
    output = f"{straight}-killed"
    assert whole.stop(output, 2, signal.SIGKILL, *arguments) == -signal.SIGKILL
    whole.run(*arguments, output=output)
    weights = [load_file(whole.folder / name / "adapter_model.safetensors") for name in (output, straight)]
    assert_same_bits(*weights)
    assert whole.records(output) == whole.records(straight)
    configs = [(whole.folder / name / "adapter_config.json").read_text() for name in (output, straight)]
    assert configs[0] == configs[1]


def test_going_on_from_an_adapter_refers_to_that_adapter(whole: Project, caplog: pytest.LogCaptureFixture) -> None:
    recipe = whole.folder / "goes_on.yaml"
    recipe.write_text(RECIPE + "adapter: {base_adapter: ./out}\n")
    assert run(recipe, ["train.max_steps=2"], output=whole.folder / "second") == 0
    assert "45 rows, 0 of them cached" in caplog.text
    first = whole.records("second")[0]
    assert first["plain_margin"] == pytest.approx(0, abs=1e-5)
    assert "with adapter" in summary(whole.folder / "second")["reference"]["name"]
    before, after = (load_file(whole.folder / name / "adapter_model.safetensors") for name in ("out", "second"))
    assert before.keys() == after.keys()
    moved = max(abs(after[name] - value).max() for name, value in before.items())
    assert 0 < moved < 0.1
    card = (whole.folder / "second" / "README.md").read_text()
    assert "goes on from `out`" in card
    assert load_recipe(recipe).adapter is not None


def test_merged_it_is_a_model_that_plain_transformers_loads(
    whole: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = whole.folder / "out"
    assert main(["merge", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(output / "merged")
    assert told["difference"] < 1e-5
    merged = AutoModelForCausalLM.from_pretrained(output / "merged")
    AutoTokenizer.from_pretrained(output / "merged")
    monkeypatch.chdir(output)
    torch.testing.assert_close(logits(merged), logits(AutoPeftModelForCausalLM.from_pretrained(".")))
    assert main(["merge", str(output)]) == 2
    assert "something already" in capsys.readouterr().err


def test_an_adapter_without_its_runs_notes_finds_its_base_or_says_what_to_do(
    whole: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (whole.folder / "out").iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    assert main(["merge", str(copy)]) == 3
    assert "--base" in capsys.readouterr().err
    assert main(["merge", str(copy), "--base", str(whole.folder / "base")]) == 0
    shutil.copytree(whole.folder / "base", tmp_path / "base")
    assert main(["merge", str(copy), "--output", str(tmp_path / "again")]) == 0
    weights = [load_file(folder / "model.safetensors") for folder in (copy / "merged", tmp_path / "again")]
    assert_same_bits(*weights)


@pytest.mark.parametrize(("folder", "message"), [("base", "whole model already"), ("", "holds no adapter")])
def test_there_must_be_an_adapter_to_merge(
    whole: Project, folder: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(whole.folder / folder), "--output", str(whole.folder / "nothing")]) == 2
    assert message in capsys.readouterr().err
    assert not (whole.folder / "nothing").exists()


def test_an_adapter_named_as_the_model_is_refused(whole: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["run", str(whole.recipe), "--set", f"model.id={whole.folder / 'out'}", "--output", str(whole.folder / "no")]
    )
    assert code == 3
    assert re.search(r"an adapter, not a model.*adapter\.base_adapter", capsys.readouterr().err, re.DOTALL)


JUDGE = "def score(prompt, answer):\n    return float(len(answer))\n"
TWINS = """
evaluate: {prompts: {id: heldout.jsonl}, judge: {python: judge.py:score}, max_new_tokens: 12, limit: 4, bootstrap: 20}
variants:
  plain: {conditioning: none}
  inspo: {conditioning: symmetric, adapter: {r: 2, use_rslora: true}}
"""


def test_twins_are_two_adapters_on_one_base_that_is_loaded_once_to_compare_them(
    whole: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspo_hub.evaluate import systems

    loaded: list[Path] = []
    load = systems.load_model
    monkeypatch.setattr(systems, "load_model", lambda path, **kw: (loaded.append(path), load(path, **kw))[1])
    (whole.folder / "judge.py").write_text(JUDGE)
    recipe = whole.folder / "twins.yaml"
    recipe.write_text(RECIPE + "adapter: {r: 4}\n" + TWINS)
    assert run(recipe, ["train.max_steps=3"], output=whole.folder / "twins") == 0
    assert loaded == [whole.folder / "base"]
    comparison = json.loads((whole.folder / "twins" / "report" / "comparison.json").read_text())
    assert [system["name"] for system in comparison["systems"]] == ["base", "plain", "inspo"]
    kl = {system["name"]: system["kl_from_base"] for system in comparison["systems"]}
    assert kl["plain"]["value"] != kl["inspo"]["value"] != 0
    for name in ("plain", "inspo"):
        assert (whole.folder / "twins" / name / "adapter_model.safetensors").is_file()


def test_qlora_trains_on_the_base_in_nf4_with_a_reference_of_its_own(
    whole: Project, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    output = train(whole, "qlora", "adapter.quantize=nf4", "train.max_steps=2")
    assert "45 rows, 0 of them cached" in caplog.text
    assert whole.records("qlora")[0]["plain_margin"] == pytest.approx(0, abs=1e-2)
    assert os.path.getsize(output / "adapter_model.safetensors") == os.path.getsize(
        whole.folder / "out" / "adapter_model.safetensors"
    )
    assert main(["merge", str(output)]) == 0
    base = load_file(whole.folder / "base" / "model.safetensors")
    merged = load_file(output / "merged" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert abs(merged[name] - base[name]).max() > 1e-3, "merged into what nf4 left, not into the weights before"
    assert (merged["model.embed_tokens.weight"] == base["model.embed_tokens.weight"]).all()


@pytest.mark.slow
def test_two_processes_train_the_same_adapter(whole: Project) -> None:
    whole.run("--set", "train.tokens_per_microbatch=500", output="two", processes=2)
    one, two = (load_file(whole.folder / name / "adapter_model.safetensors") for name in ("out", "two"))
    for name, value in one.items():
        torch.testing.assert_close(torch.from_numpy(two[name]), torch.from_numpy(value), rtol=1e-5, atol=5e-6)
    for left, right in zip(whole.records(), whole.records("two"), strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
