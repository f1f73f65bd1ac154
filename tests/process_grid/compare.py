"""How far two runs of one recipe are apart: losses and metrics by line, weights by tensor, all of them relative."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from inspo_hub.recipe.shipped import shipped_folder
from tests.process_grid.cases import STEPS, folder_of
from tests.training.conftest import Project

LIMIT = 1e-5
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Difference:
    """Largest relative differences between two runs."""

    loss: float
    """Of a logged step's loss."""
    metrics: float
    """Of any other number of a line, relative to its own size or to 1 where it is smaller: many are near 0."""
    weights: float
    """‖difference‖ ÷ ‖weight‖ of a tensor."""

    @property
    def worst(self) -> float:
        return max(self.loss, self.metrics, self.weights)


def launch(project: Project, processes: int, names: list[str], *, timeout: float = 3000) -> None:
    """The cases on so many processes of this machine, with the shipped profile."""
    profile = shipped_folder() / "accelerate" / "cpu-gloo.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(profile), "--num_processes"]
    command += [str(processes), "--main_process_port", "0", "-m", "tests.process_grid.worker", str(project.folder)]
    environment = {**project.environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *names], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{processes} processes: {done.stderr[-4000:]}"
    for name in names:
        trained = json.loads((project.folder / folder_of(processes, name) / "trained.json").read_text())
        assert trained["processes"] == processes, "the processes did not find each other"
        assert trained["steps"] == STEPS


def difference(project: Project, name: str, left: int, right: int) -> Difference:
    """Of one case between two numbers of processes."""
    one, other = (project.folder / folder_of(processes, name) for processes in (left, right))
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, other)
    ]
    assert len(lines[0]) == len(lines[1])
    losses, metrics = [0.0], [0.0]
    for here, there in zip(*lines, strict=True):
        assert here.keys() == there.keys()
        assert (here["step"], here["split"]) == (there["step"], there["split"])
        for key, value in here.items():
            if isinstance(value, float) and key == "loss":
                losses.append(abs(there[key] - value) / abs(value))
            elif isinstance(value, int | float):
                metrics.append(abs(there[key] - value) / max(1.0, abs(value)))
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    norms = [
        float(np.linalg.norm(value - weights[1][key]) / np.linalg.norm(value)) for key, value in weights[0].items()
    ]
    return Difference(max(losses), max(metrics), max(norms))
