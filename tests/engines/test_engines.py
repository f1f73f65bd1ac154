"""Runs under the shipped profiles against a run in one process: losses, weights, resuming, an ordinary model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from inspo_hub.errors import TrainingError
from inspo_hub.plan.memory import ENGINES
from inspo_hub.recipe.shipped import shipped_folder
from inspo_hub.training.engine import calls_are_collective, shares_weights
from inspo_hub.workflow import run
from tests.training.conftest import Project, make_project

PROFILES = shipped_folder() / "accelerate"
ROOT = Path(__file__).parents[2]


def launch(
    project: Project, profile: str, output: str, *arguments: str, processes: int = 2, module: str = "inspo_hub.run"
) -> subprocess.CompletedProcess[str]:
    """The recipe, launched with a shipped profile."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(PROFILES / f"{profile}.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", "0", "-m", module, str(project.recipe)]
    done = subprocess.run(
        [*command, "--output", str(project.folder / output), *arguments],
        env={**project.environment(), "PYTHONPATH": str(ROOT)},
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert json.loads((project.folder / output / "trained.json").read_text())["processes"] == processes
    return done


def fsdp2(project: Project, output: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return launch(project, "fsdp2", output, *arguments, module="tests.engines.fsdp_on_cpu")


def assert_same(project: Project, one: str, other: str, name: str = "model.safetensors") -> None:
    left, right = (load_file(project.folder / folder / name) for folder in (one, other))
    assert left.keys() == right.keys()
    for key, value in left.items():
        np.testing.assert_allclose(right[key], value, rtol=1e-5, atol=5e-6, err_msg=key)
    for here, there in zip(project.records(one), project.records(other), strict=True):
        assert here.keys() == there.keys()
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-5)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With its run in one process, in `one`."""
    made = make_project(tmp_path_factory.mktemp("engines"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPO_HUB_CACHE", str(made.folder / "cache"))
        assert run(made.recipe, output=made.folder / "one") == 0
    shutil.rmtree(made.folder / "cache" / "reference")  # every engine scores for itself
    return made


@pytest.mark.slow
def test_fsdp2_trains_the_same_policy_and_leaves_an_ordinary_model(project: Project) -> None:
    from transformers import AutoModelForCausalLM

    done = fsdp2(project, "fsdp2")
    assert "45 rows, 0 of them cached" in done.stderr, "the reference was scored on shared-out weights"
    checkpoint = project.folder / "fsdp2" / "checkpoints" / "checkpoint-6"
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir(), "this was not FSDP"
    assert_same(project, "one", "fsdp2")
    model = AutoModelForCausalLM.from_pretrained(project.folder / "fsdp2")
    assert model.config.architectures == ["LlamaForCausalLM"]
    halfway = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert not torch.equal(halfway.lm_head.weight, model.lm_head.weight)


@pytest.mark.slow
def test_fsdp2_goes_on_from_its_checkpoint_to_the_same_bits(project: Project) -> None:
    if not (project.folder / "fsdp2").is_dir():
        fsdp2(project, "fsdp2")
    folder = project.folder / "resumed"
    shutil.copytree(project.folder / "fsdp2", folder)
    shutil.rmtree(folder / "checkpoints" / "checkpoint-8")
    for name in ("trained.json", "config.json", "model.safetensors"):
        (folder / name).unlink()
    assert "going on from" in fsdp2(project, "resumed").stderr
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (project.folder / "fsdp2" / name).read_bytes()


@pytest.mark.slow
def test_fsdp2_trains_the_same_adapter(project: Project) -> None:
    adapter = "adapter={r: 4}"
    project.run("--set", adapter, output="one-lora")
    fsdp2(project, "fsdp2-lora", "--set", adapter)
    assert_same(project, "one-lora", "fsdp2-lora", "adapter_model.safetensors")


def test_every_engine_of_a_plan_has_a_profile_that_says_what_was_run() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    files = {path.stem: path for path in PROFILES.glob("*.yaml")}
    assert set(files) == {*ENGINES, "cpu-gloo"}
    for path in files.values():
        text = path.read_text(encoding="utf-8")
        assert "Run: " in text or "Run, " in text, path
        assert "Not run: " in text, path
        load_config_from_file(str(path))  # accelerate refuses keys that it does not know


def test_the_first_fsdp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(TrainingError, match=r"fsdp_version: 2\n.*recipes/accelerate/fsdp2\.yaml"):
        shares_weights()
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert shares_weights()
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert not shares_weights()


def test_calls_are_collective_where_weights_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION"):
        monkeypatch.delenv(name, raising=False)
    assert not calls_are_collective()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert calls_are_collective()
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert calls_are_collective()
