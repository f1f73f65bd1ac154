"""`python -m tests.process_grid.worker FOLDER CASE …`: cases one after the other; under a launch, in all processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inspo_hub.workflow import run
from tests.process_grid.cases import BUDGETS, CASES, folder_of
from tests.training.conftest import Project


def run_cases(project: Project, processes: int, names: list[str]) -> None:
    """Each case into a folder of its own."""
    for name in names:
        settings = [*CASES[name], f"train.tokens_per_microbatch={BUDGETS[processes]}"]
        assert run(project.recipe, settings, output=project.folder / folder_of(processes, name)) == 0


if __name__ == "__main__":
    run_cases(Project(Path(sys.argv[1])), int(os.environ.get("WORLD_SIZE", "1")), sys.argv[2:])
