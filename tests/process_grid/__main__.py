"""`python -m tests.process_grid`: every case on 1, 2 and 4 processes, and how far they are apart."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.process_grid.cases import BUDGETS, CASES, grid_project
from tests.process_grid.compare import LIMIT, difference, launch


def main() -> int:
    """Prints a table in Markdown; ends with 1 where something is further apart than the limit."""
    names, started, worst = list(CASES), time.monotonic(), 0.0
    with tempfile.TemporaryDirectory(prefix="grid-") as folder:
        project = grid_project(Path(folder))
        for processes in BUDGETS:
            launch(project, processes, names)
            print(f"{processes} processes done after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        print("| case | loss, 2 | metrics, 2 | weights, 2 | loss, 4 | metrics, 4 | weights, 4 |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for name in names:
            apart = [difference(project, name, 1, processes) for processes in (2, 4)]
            worst = max(worst, *(one.worst for one in apart))
            numbers = [f"{value:.1e}" for one in apart for value in (one.loss, one.metrics, one.weights)]
            print(f"| {name} | {' | '.join(numbers)} |")
    print(f"\nlargest: {worst:.1e}, limit {LIMIT:.0e}")
    return int(worst > LIMIT)


sys.exit(main())
