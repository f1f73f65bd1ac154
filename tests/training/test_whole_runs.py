"""Whole runs in this process: what twins leave and say, what the metrics hold, what a cached reference serves."""

from __future__ import annotations

import json
import logging
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from inspo_hub.metrics import METRICS
from inspo_hub.recipe import load_recipe
from inspo_hub.training import reference_pass
from inspo_hub.training.observing import reading_share
from inspo_hub.training.progress import ProgressLines
from inspo_hub.workflow import run
from tests.training.conftest import RECIPE, TEMPLATE, Project, make_project

TWINS = RECIPE + "variants: {dpo: {conditioning: none}, inspo: {conditioning: symmetric}}\n"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with its own cache, whose runs happen in this process."""
    project = make_project(tmp_path_factory.mktemp("whole"))
    (project.folder / "twins.yaml").write_text(TWINS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPO_HUB_CACHE", str(project.folder / "cache"))
        yield project


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="inspo_hub")


def train(project: Project, output: str, *overrides: str, recipe: str = "recipe.yaml") -> Path:
    folder = project.folder / output
    assert run(project.folder / recipe, overrides, output=folder) == 0
    return folder


def records(folder: Path, split: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line.pop("split") == split]


def test_twins_leave_what_the_contract_names_and_say_what_they_share_once(
    here: Project, caplog: pytest.LogCaptureFixture
) -> None:
    folder = train(here, "twins", "train.max_steps=4", recipe="twins.yaml")
    promised = {"model.safetensors", "config.json", "tokenizer.json", "README.md", "recipe.yaml", "lock.json"}
    for name in ("dpo", "inspo"):
        files = {path.name for path in (folder / name).iterdir()}
        assert files >= {*promised, "metrics.jsonl", "report"}
        report = json.loads((folder / name / "report" / "data.json").read_text(encoding="utf-8"))
        assert report["train_pairs"] == 45
        modes = {file: stat.S_IMODE((folder / name / file).stat().st_mode) for file in promised & files}
        assert modes["model.safetensors"] == modes["config.json"], "whoever may read the model may read its weights"
        again = load_recipe(folder / name / "recipe.yaml", [f"root={here.folder}"])
        assert again.conditioning.name == {"dpo": "none", "inspo": "symmetric"}[name]
    locks = [json.loads((folder / name / "lock.json").read_text(encoding="utf-8")) for name in ("dpo", "inspo")]
    assert locks[0]["pairs_fingerprint"] == locks[1]["pairs_fingerprint"]
    said = caplog.text
    assert said.count("packing: tree") == 1
    assert said.count("45 training pairs") == 1
    assert said.count("re-scored rows agree to 0 nats") == 1
    assert "reference: 45 rows, 0 of them cached (training)" in said
    assert "reference: 45 rows, 45 of them cached (training)" in said, "the second twin finds what the first scored"
    assert f"to publish: inspo-hub publish {folder} --repo OWNER/NAME" in said
    assert re.search(r"dpo  step 2/4  loss .* left 0:00:\d\d$", said, re.MULTILINE)


def test_a_long_reference_pass_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reference_pass, "TELL_EVERY_S", 0.0)
    assert list(reference_pass._told([[0], [1], [2], [3]])) == [[0], [1], [2], [3]]
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in told] == [f"reference: {share}% scored" for share in (25, 50, 75)]
    assert all(re.fullmatch(r".*, 0:00:0\d left", line) for line in told)


@pytest.mark.parametrize("conditioning", ["none", "symmetric", "averaged"])
def test_every_line_has_its_metrics_and_held_out_ones_do_not_depend_on_the_batch_size(
    here: Project, conditioning: str
) -> None:
    settings = [f"conditioning={conditioning}", "train.max_steps=3", "train.log_every=1"]
    folders = [
        train(here, f"{conditioning}-{budget}", *settings, f"train.tokens_per_microbatch={budget}")
        for budget in (150, 100_000)
    ]
    plain_only = {name for name in METRICS if name.startswith("conditioned") or name == "distillation_gap"}
    for line in records(folders[0], "train"):
        assert set(METRICS) - set(line) == (plain_only if conditioning == "none" else set())
        assert {"grad_norm", "learning_rate", "step"} <= set(line)
        if conditioning != "none":
            gap = line["conditioned_margin"] - line["plain_margin"]
            assert line["distillation_gap"] == pytest.approx(gap, abs=1e-9)
    for small, large in zip(records(folders[0], "heldout"), records(folders[1], "heldout"), strict=True):
        assert set(METRICS) <= set(small), "all four scores, whatever is trained"
        assert small == pytest.approx(large, rel=1e-5, abs=1e-5)
    timings = [json.loads(line) for line in (folders[0] / "timings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in timings] == [1, 2, 3]
    assert all(line["tokens_per_second"] > 0 for line in timings)


def reference_of(folder: Path) -> str:
    return str(json.loads((folder / "trained.json").read_text(encoding="utf-8"))["reference"]["name"])


def test_a_reference_in_the_same_contexts_starts_with_every_margin_at_zero(here: Project) -> None:
    settings = ["conditioning=symmetric", "train.max_steps=1"]
    plain = train(here, "plain-reference", *settings)
    same = train(here, "same-contexts", *settings, "reference.context=conditioned")
    for folder, zeros in ((plain, 1), (same, 2)):
        start = records(folder, "heldout")[0]
        margins = [start["plain_margin_std"], start["conditioned_margin_std"]]
        assert sum(margin == pytest.approx(0, abs=1e-5) for margin in margins) == zeros
    assert reference_of(same).startswith("initial policy (")


def test_another_model_as_the_reference_is_named_and_scores(here: Project, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    other = LlamaForCausalLM(LlamaConfig.from_pretrained(here.folder / "base"))
    other.save_pretrained(here.folder / "elsewhere")
    settings = ["conditioning=none", "train.max_steps=1", "reference.source=model"]
    folder = train(here, "other-reference", *settings, f"reference.id={here.folder}/elsewhere")
    assert reference_of(folder).startswith("model ")
    assert "reference: model " in caplog.text
    start = records(folder, "heldout")[0]
    assert start["plain_margin_std"] > 0.01, "policy and reference are two models"
    pairs = [line for line in records(folder, "train") if line["pairs"]]
    assert pairs[0]["offline_kl_estimate"] != pytest.approx(0, abs=1e-3)


def test_objectives_without_a_reference_and_ablations_with_a_caution(
    here: Project, caplog: pytest.LogCaptureFixture
) -> None:
    folder = train(here, "orpo", "objective={name: orpo}", "train.max_steps=1")
    assert "reference:" not in caplog.text
    assert "offline_kl_estimate" not in records(folder, "train")[0]
    train(here, "ablation", "conditioning=rejected_only", "train.max_steps=1")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in warnings if "is an ablation" in text] == warnings
    assert len(warnings) == 1


def test_a_terminal_gets_a_bar_and_the_lines_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=2, global_step=0)
    control = SimpleNamespace(should_log=False)
    lines = ProgressLines("dpo")
    lines.on_train_begin(None, state, control)  # type: ignore[arg-type]
    for state.global_step in (1, 2):
        lines.on_step_end(None, state, control)  # type: ignore[arg-type]
        lines.on_log(None, state, control, logs={"loss": 0.5, "plain_margin": 0.25})  # type: ignore[arg-type]
    lines.on_train_end(None, state, control)  # type: ignore[arg-type]
    assert control.should_log, "the last step is logged, whole interval or not"
    assert re.search(r"dpo: +100%.*2/2", capsys.readouterr().err)
    assert "dpo  step 1/2  loss 0.5  margin 0.25  left 0:00:00" in caplog.text


def test_plain_metrics_are_of_the_whole_interval_where_reading_them_is_cheap(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["conditioning=symmetric", "train.max_steps=4", "train.log_every=2"]
    lines = {}
    for allowed in (1.0, 0.0):
        monkeypatch.setattr("inspo_hub.training.session.CHEAP_SHARE", allowed)
        folder = train(here, f"observed-{allowed}", *settings)
        lines[allowed] = records(folder, "train")
    for always, logged in zip(lines[1.0], lines[0.0], strict=True):
        assert always["distillation_gap"] == pytest.approx(always["conditioned_margin"] - always["plain_margin"])
        assert logged["conditioned_margin"] == always["conditioned_margin"], "what is trained does not depend on it"
        assert logged["plain_margin"] != always["plain_margin"], "of 6 pairs, not of 12"


@pytest.mark.parametrize("tied", [False, True])
def test_the_price_of_reading_plain_scores_is_the_heads_part_of_three_forwards(tied: bool) -> None:
    vocab, hidden, inner, layers = 1000, 16, 24, 3
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    )
    body = layers * (4 * hidden * hidden + 3 * hidden * inner + 2 * hidden) + hidden
    pairs = SimpleNamespace(lengths=np.array([[5, 3, 4], [6, 1, 2]]))
    reading = vocab * hidden * (3 + 4 + 1 + 2)
    share = reading / (3 * (body * 40 + reading))
    assert reading_share(model, pairs, np.array([25, 15])) == pytest.approx(share)  # type: ignore[arg-type]


def cached(caplog: pytest.LogCaptureFixture) -> int:
    """Rows of the last run that came from the cache."""
    found = re.findall(r"reference: (\d+) rows, (\d+) of them cached \(training\)", caplog.text)
    assert found[-1][0] == "45"
    return int(found[-1][1])


def test_what_the_reference_cache_takes_for_the_same_and_what_for_new(
    here: Project, caplog: pytest.LogCaptureFixture
) -> None:
    quick = ["train.max_steps=1", "conditioning=none"]
    train(here, "first", *quick)
    elsewhere = ["train.lr=1e-4", "objective={name: ipo, beta: 0.3}", "train.epochs=3", "seed=7"]
    train(here, "same", *quick, *elsewhere, "train.tokens_per_microbatch=300")
    assert cached(caplog) == 45
    (here.folder / "template.jinja").write_text("Say: " + TEMPLATE, encoding="utf-8")
    shutil.copytree(here.folder / "base", here.folder / "other")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(here.folder / "other")
    with torch.no_grad():
        model.lm_head.weight[3, 5] += 1e-3
    model.save_pretrained(here.folder / "other")
    train(here, "new-truncation", *quick, "data.max_length=40")
    assert 0 < cached(caplog) < 45, "rows that fit stay what they are, cut ones are new"
    train(here, "new-template", *quick, f"model.chat_template={here.folder}/template.jinja")
    assert cached(caplog) == 0
    train(here, "new-weights", *quick, f"model.id={here.folder}/other")
    assert cached(caplog) == 0
