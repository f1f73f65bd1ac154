"""The short form of `python -m tests.process_grid`: one, two and four processes train one policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process_grid.cases import CASES, SHORT, grid_project
from tests.process_grid.compare import LIMIT, difference, launch
from tests.process_grid.worker import run_cases
from tests.training.conftest import Project


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose short cases were trained in this process."""
    project = grid_project(tmp_path_factory.mktemp("grid"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPO_HUB_CACHE", str(project.folder / "cache"))
        run_cases(project, 1, list(SHORT))
    return project


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_at_any_token_budget_train_the_same_policy(one: Project, processes: int) -> None:
    """An uneven last step, processes without pairs, and fewer held-out pairs than processes are among it."""
    launch(one, processes, list(SHORT), timeout=280)
    for name in SHORT:
        apart = difference(one, name, 1, processes)
        assert apart.worst <= LIMIT, f"{name}: {apart}"


def test_a_difference_is_found(one: Project, tmp_path: Path) -> None:
    import json
    import shutil

    name, copy = SHORT[0], Project(tmp_path)
    for place in (1, 2):
        shutil.copytree(one.folder / f"1-{list(CASES).index(name)}", tmp_path / f"{place}-{list(CASES).index(name)}")
    assert difference(copy, name, 1, 2).worst == 0
    log = tmp_path / f"2-{list(CASES).index(name)}" / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1]["loss"] *= 1 + 3e-5
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert difference(copy, name, 1, 2).loss == pytest.approx(3e-5, rel=1e-3)
