"""A run measures its kernels once: the first process for all of them, and the next run not again."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np

from inspo_hub.training.startup import fitting_rows
from tests.training.conftest import Project

RUN = """
import os, sys, time
from inspo_hub import kernels
from inspo_hub.cli import main
from inspo_hub.logprobs import choosing, softmax

class Slow(softmax.TorchSoftmax):
    def logps(self, logits, targets, *, slopes):
        time.sleep(0.01)
        return super().logps(logits, targets, slopes=slopes)

# A CPU has one kernel for each thing: another stands in, and the one that is there is slowed down.
softmax._KERNELS = {"torch": Slow(), "liger": softmax.TorchSoftmax()}
softmax.softmax_kernels = choosing.softmax_kernels = lambda device: ("torch", "liger")
if os.environ.get("RANK", "0") != "0" or os.environ["MAY_MEASURE"] == "0":
    def refuse(*args, **kwargs):
        raise AssertionError("this process has nothing to measure")
    kernels.choose = refuse
sys.exit(main(["run", *sys.argv[1:]]))
"""


def run(project: Project, output: str, *, processes: int = 0, may_measure: bool = True) -> tuple[str, dict[str, Any]]:
    (project.folder / "with_stand_ins.py").write_text(RUN, encoding="utf-8")
    done = subprocess.run(
        project.command(output=output, processes=processes, module="with_stand_ins"),
        env={**project.environment(), "MAY_MEASURE": str(int(may_measure)), "PYTHONPATH": str(project.folder)},
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, json.loads((project.folder / output / "trained.json").read_text(encoding="utf-8"))


def test_a_run_measures_once_for_all_processes_and_for_the_next_run(project: Project) -> None:
    told, first = run(project, "measured", processes=2)
    assert first["kernels"]["softmax"]["name"] == "liger"
    assert set(first["kernels"]["softmax"]["milliseconds"]) == {"torch", "liger"}
    assert [choice["name"] for choice in first["kernels"]["attention"]] == ["blocks"]
    assert "softmax by liger, " in told
    assert "torch " in told
    told, second = run(project, "remembered", may_measure=False)
    assert second["kernels"] == first["kernels"]
    assert "softmax by liger, " in told
    # The stand-in computes what the run's own kernel does.
    project.run(output="plain")
    losses = [record["loss"] for record in project.records("plain") if "loss" in record]
    assert losses
    again = [record["loss"] for record in project.records("remembered") if "loss" in record]
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    assert json.loads((project.folder / "plain" / "trained.json").read_text(encoding="utf-8"))["kernels"] is None


def test_the_row_that_is_measured_fills_a_micro_batch() -> None:
    assert fitting_rows(np.array([30, 40, 50, 60]), 120) == [0, 1, 2]
    assert fitting_rows(np.array([300, 40]), 120) == [0]
    assert fitting_rows(np.array([30, 40]), 1000) == [0, 1]
