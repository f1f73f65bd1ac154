"""The main job in processes of its own: what it leaves behind, resuming to the same bits, processes that agree."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.training.conftest import Project

OUTPUT_FILES = {
    "README.md",
    "config.json",
    "lock.json",
    "metrics.jsonl",
    "model.safetensors",
    "recipe.yaml",
    "tokenizer.json",
    "trained.json",
}


def weights(project: Project, output: str) -> dict[str, np.ndarray]:
    return load_file(project.folder / output / "model.safetensors")


def assert_same_bits(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(project: Project) -> Project:
    """The project after one uninterrupted run into `out`."""
    project.run()
    return project


def test_a_run_leaves_a_model_that_plain_transformers_loads(whole: Project) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = whole.folder / "out"
    assert {path.name for path in output.iterdir()} >= OUTPUT_FILES
    assert not list(output.rglob(".saving"))
    AutoTokenizer.from_pretrained(output)
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.config.architectures == ["LlamaForCausalLM"]
    base = load_file(whole.folder / "base" / "model.safetensors")
    assert any((weights(whole, "out")[name] != value).any() for name, value in base.items())


def test_the_log_has_every_interval_and_the_held_out_set_before_and_after(whole: Project) -> None:
    records = whole.records()
    train = [record["step"] for record in records if record["split"] == "train"]
    heldout = [record["step"] for record in records if record["split"] == "heldout"]
    assert (train, heldout) == ([2, 4, 6, 8], [0, 8])  # 45 pairs, 6 a step: 8 steps, the last with 3 pairs
    assert [record["pairs"] for record in records if record["split"] == "train"] == [12, 12, 12, 9]
    first = records[0]
    assert first["plain_margin"] == pytest.approx(0, abs=1e-5)  # step 0: policy and reference are one model
    assert first["distillation_gap"] == pytest.approx(first["conditioned_margin"] - first["plain_margin"])


def test_a_second_run_does_nothing_and_keeps_the_weights(whole: Project) -> None:
    before = (whole.folder / "out" / "model.safetensors").stat().st_mtime_ns
    done = whole.run()
    assert "already trained" in done.stderr
    assert (whole.folder / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_another_recipe_into_the_same_folder_is_refused_by_key(whole: Project) -> None:
    output = whole.folder / "out"
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    done = whole.run("--set", "train.lr=1e-3", expect=2)
    assert "train.lr: 0.003 -> 0.001" in done.stderr
    assert "--resume none" in done.stderr
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before, "nothing was touched"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits_and_log(whole: Project, how: signal.Signals, code: int) -> None:
    output = f"stopped-{how.name}"
    exit_code = whole.stop(output, 2, how)
    if exit_code == 0:
        pytest.fail("the run ended before the signal came; make it longer")
    assert exit_code == code
    assert not (whole.folder / output / "trained.json").exists()
    whole.run(output=output)
    assert_same_bits(weights(whole, output), weights(whole, "out"))
    assert whole.records(output) == whole.records()


def test_the_token_budget_changes_nothing(whole: Project) -> None:
    whole.run("--set", "train.tokens_per_microbatch=100000", output="one-batch")
    for name, value in weights(whole, "out").items():
        np.testing.assert_allclose(weights(whole, "one-batch")[name], value, rtol=1e-5, atol=2e-6, err_msg=name)


def read_summary(project: Project, output: str) -> dict[str, Any]:
    return dict(json.loads((project.folder / output / "trained.json").read_text()))


def test_the_reference_cache_is_shared_by_runs_that_differ_in_what_it_does_not_depend_on(whole: Project) -> None:
    done = whole.run(
        "--set", "train.lr=1e-3", "--set", "objective.beta=0.1", "--set", "conditioning=none", output="other"
    )
    assert "45 rows, 45 of them cached" in done.stderr
    shorter = whole.run("--set", "data.max_length=50", "--set", "conditioning=none", output="shorter")
    assert "45 rows, 45 of them cached" not in shorter.stderr


def test_a_cache_that_belongs_to_other_weights_is_found_out(whole: Project, tmp_path: Path) -> None:
    import shutil
    import sqlite3

    copy = Project(tmp_path / "copy")
    shutil.copytree(whole.folder, copy.folder)
    for file in (copy.folder / "cache" / "reference").glob("*.sqlite"):
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE logps SET logps = logps - 5")
    done = copy.run(output="again", expect=4)
    assert "cached reference log-probabilities differ" in done.stderr
