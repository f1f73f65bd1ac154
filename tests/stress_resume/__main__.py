"""`python -m tests.stress_resume --kills 50 --seed 0`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.stress_resume.campaign import campaign
from tests.stress_resume.recipe import stress_project


def main() -> int:
    """Prints what is done; ends with 1 where a run ended differently."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress_resume", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for a run: adapter={}")
    given = parser.parse_args()
    arguments = tuple(word for setting in given.set for word in ("--set", setting))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        try:
            report = campaign(
                stress_project(Path(folder)),
                given.kills,
                given.seed,
                arguments,
                say=lambda text: print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True),
            )
        except AssertionError as error:
            print(f"FAILED: {error}")
            return 1
    print(
        f"{len(report.kills)} kills in {report.runs} runs, {report.unreached} came too late; "
        f"every run ended with the same bits and lines as the uninterrupted one ({time.monotonic() - started:.0f} s)"
    )
    return 0


sys.exit(main())
