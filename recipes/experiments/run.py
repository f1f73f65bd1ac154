"""Runs experiments by name and writes what came out: `python recipes/experiments/run.py conditioning`.

    <output>/<name>.md, <name>*.svg     tables and charts of an experiment
    <output>/<name>/<world>/            the runs behind them, as `inspo-hub run` leaves them
    <output>/data, <output>/bases       the worlds, which experiments share

A cut series goes on where it was: give the same command again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

EXPERIMENTS = (
    "invariance",
    "identifiability",
    "conditioning",
    "distillation",
    "novel_alternatives",
    "overhead",
    "frontier",
)
"""By name: a module of this folder with `experiment(series, seeds)`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and runs what it asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="+", choices=(*EXPERIMENTS, "all"), metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--output", type=Path, default=Path("outputs/experiments"), help="folder of everything made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of data and training")
    parser.add_argument("--short", action="store_true", help="a few pairs and steps: the path, and no result")
    options = parser.parse_args(arguments)
    names = EXPERIMENTS if "all" in options.names else tuple(dict.fromkeys(options.names))
    for name in names:
        perform(name, options.output, options.seeds, short=options.short)


def perform(name: str, output: Path, seeds: Sequence[int], *, short: bool = False) -> Path:
    """Runs one experiment and writes its page; returns the page's path."""
    import torch
    from series import SHORT, Series, Size

    torch.set_num_threads(1)  # the matrices are too small to share, and sums in one order are the same bytes
    output.mkdir(parents=True, exist_ok=True)
    series = Series(output=output.resolve(), size=SHORT if short else Size())
    experiment: Callable[..., tuple[str, Mapping[str, str]]] = import_module(name).experiment
    wall, processor = time.perf_counter(), time.process_time()
    text, charts = experiment(series, seeds)
    cost = f"This call: {time.process_time() - processor:.0f} s of processor time, {time.perf_counter() - wall:.0f} s."
    page = output / f"{name}.md"
    page.write_text(f"{text}\n{cost}\n", encoding="utf-8")
    for file, svg in charts.items():
        (output / file).write_text(svg, encoding="utf-8")
    print(page.read_text(encoding="utf-8"), flush=True)
    return page


if __name__ == "__main__":
    main()
