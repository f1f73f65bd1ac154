"""The short form of `python -m tests.stress_resume`, the watcher it relies on, and resuming with other processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress_resume.campaign import assert_equal, campaign
from tests.stress_resume.kills import SITE, Straight, draw
from tests.stress_resume.recipe import stress_project
from tests.training.conftest import Project


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_kills_leave_no_trace(tmp_path: Path) -> None:
    report = campaign(stress_project(tmp_path, rows=60), kills=3, seed=4)
    assert len(report.kills) == 3
    assert report.runs >= 1


def test_kills_are_drawn_from_the_seed_and_of_every_kind() -> None:
    straight = Straight(events=400, seconds=9.0)
    drawn = [draw(random.Random(seed), straight) for seed in range(40)]
    assert drawn == [draw(random.Random(seed), straight) for seed in range(40)]
    assert {kill.kind for kill in drawn} == {"event", "moment", "saving", "reference"}


@pytest.mark.parametrize(("kill_at", "code", "left"), [(0, 0, {"a", "b"}), (2, -9, {"a"})])
def test_the_watcher_kills_before_the_event_and_counts(tmp_path: Path, kill_at: int, code: int, left: set[str]) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    program = "import sys; [open(f'{sys.argv[1]}/{name}', 'w').close() for name in 'ab']; open(sys.argv[2], 'w')"
    count = tmp_path / "count"
    variables = {"PYTHONPATH": str(SITE), "STRESS_WATCH": str(watched), "STRESS_COUNT": str(count)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(watched), str(tmp_path / "elsewhere")],
        env={**os.environ, **variables, "STRESS_KILL_AT": str(kill_at)},
        timeout=60,
    )
    assert done.returncode == code
    assert {path.name for path in watched.iterdir()} == left
    assert count.exists() == (code == 0)
    assert code != 0 or count.read_text() == "2"


@pytest.mark.parametrize("damage", ["weights", "lines", "left over"])
def test_what_differs_is_found(tmp_path: Path, damage: str) -> None:
    for folder in ("straight", "killed"):
        (tmp_path / folder).mkdir()
        for name in ("metrics.jsonl", "recipe.yaml", "model.safetensors"):
            (tmp_path / folder / name).write_text(f"{name}\n")
        (tmp_path / folder / "trained.json").write_text(f'{{"seconds_per_step": {len(folder)}}}')
    assert_equal(tmp_path / "straight", tmp_path / "killed", [])
    if damage == "left over":
        (tmp_path / "killed" / ".trained.json.7.tmp").touch()
    else:
        name = {"weights": "model.safetensors", "lines": "metrics.jsonl"}[damage]
        (tmp_path / "killed" / name).write_text("other")
    with pytest.raises(AssertionError, match=r"differs after: no kill|after: no kill"):
        assert_equal(tmp_path / "straight", tmp_path / "killed", [])


@pytest.mark.slow
def test_it_goes_on_with_two_processes_to_the_same_losses(project: Project) -> None:
    project.run()
    assert project.stop("grown", 2, signal.SIGTERM) == 130
    done = project.run(output="grown", processes=2)
    assert "going on from" in done.stderr
    for left, right in zip(project.records(), project.records("grown"), strict=True):
        assert (left["step"], left["split"]) == (right["step"], right["split"])
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
