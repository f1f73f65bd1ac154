"""The benchmark's command line; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.bench import attention, kernels, machine, pipeline, report
from tests.bench.case import SHAPES, Case
from tests.bench.lengths import LENGTHS
from tests.bench.measure import CaseResult, measure_case
from tests.bench.presets import FULL, PRESETS
from tests.bench.sides import SIDES, SideName


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        print(_what_there_is())
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tests.bench").setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    # Random weights with saturated margins make denormals, which a CPU multiplies seven times slower.
    torch.set_flush_denormal(True)
    command = "python -m tests.bench " + shlex.join(sys.argv[1:] if arguments is None else arguments)
    if options.preset == "attention":
        comparison = attention.compare(runs=options.runs or 5)
        _write(options, {"attention": comparison.to_json()}, comparison.markdown(), command)
        return 0
    if options.preset == "pipeline":
        found = list(pipeline.figures(rows=options.pairs or 4000, runs=options.runs or 5))
        text = f"`{command.strip()}`\n\n{pipeline.markdown(found)}"
        _write(options, {"figures": [vars(figure) for figure in found]}, text, command)
        return 0
    if options.preset == "kernels":
        measured = list(
            kernels.measure(_shapes(options, kernels.DEFAULT_SHAPES), pairs=options.pairs or 8, device=_device(options))
        )
        text = f"`{command.strip()}`\n\n{kernels.markdown(measured)}"
        _write(options, {"kernels": [each.to_json() for each in measured]}, text, command)
        return 0
    results: list[CaseResult] = []
    for case, sides, runs in _chosen(options):
        results.append(_measured(case, sides, options, runs))
        # Kept case by case: a preset may take hours.
        _write_json(options, {"cases": [result.to_json() for result in results]}, command)
    text = report.markdown(results, machine.describe(), command.strip())
    _write(options, {"cases": [result.to_json() for result in results]}, text, command)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What one step costs, side by side.")
    names = (*PRESETS, "attention", "kernels", "pipeline", "full")
    parser.add_argument("--preset", choices=names, help="what to measure; default: quick, or gpu where there is one")
    parser.add_argument(
        "--sides",
        help="comma-separated, each name[@batch] and options: :checkpointing, :flat, :recomputed, :stopped, :observed, "
        ":compiled; see --list",
    )
    parser.add_argument("--lengths", help=f"comma-separated, of {', '.join(LENGTHS)}")
    parser.add_argument("--max-length", type=int, help="most tokens of a prompt and one response together")
    parser.add_argument("--shape", help=f"comma-separated, of {', '.join(SHAPES)}")
    parser.add_argument("--pairs", type=int, help="pairs of a step")
    parser.add_argument("--batch", type=int, help="pairs of a forward pass of the padded sides")
    parser.add_argument("--separator", type=int, help="tokens between an alternative and what follows it")
    parser.add_argument("--tokens-per-microbatch", type=int, help="tokens of a packed row of ours")
    parser.add_argument("--seed", type=int, help="draws other pairs")
    parser.add_argument("--runs", type=int, help="rounds in which every side runs once")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; with 1, processor time is what is compared"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--no-memory", action="store_true", help="leave peak memory out, which takes one more step each"
    )
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--list", action="store_true", help="show presets and sides, and stop")
    return parser


def _chosen(options: argparse.Namespace) -> list[tuple[Case, tuple[str, ...], int]]:
    """The cases to run, each with its sides and rounds."""
    device = _device(options)
    preset = options.preset or ("gpu" if device.type == "cuda" else "quick")
    chosen: dict[Case, tuple[tuple[str, ...], int]] = {}
    for name in FULL if preset == "full" else (preset,):
        sides = tuple(options.sides.split(",")) if options.sides else PRESETS[name].sides
        _require_known(sides)
        for case in PRESETS[name].cases:
            for changed in _changed(case, options):
                before = chosen.get(changed.on(device), ((), 0))[0]
                merged = tuple(dict.fromkeys((*before, *sides)))
                chosen[changed.on(device)] = (merged, options.runs or PRESETS[name].runs)
    return [(case, *rest) for case, rest in chosen.items()]


def _device(options: argparse.Namespace) -> torch.device:
    has_gpu = torch.cuda.is_available() if options.device == "auto" else options.device == "cuda"
    return torch.device("cuda" if has_gpu else "cpu")


def _shapes(options: argparse.Namespace, default: tuple[str, ...]) -> tuple[str, ...]:
    shapes = tuple(options.shape.split(",")) if options.shape else default
    if unknown := set(shapes) - set(SHAPES):
        raise SystemExit(f"unknown lengths or shape {sorted(unknown)}; see --help")
    return shapes


def _changed(case: Case, options: argparse.Namespace) -> list[Case]:
    """The case with what the command line says otherwise; one for each length law and shape."""
    names = ("max_length", "pairs", "batch", "separator", "tokens_per_microbatch", "seed")
    values: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    laws = options.lengths.split(",") if options.lengths else [case.lengths]
    if unknown := set(laws) - set(LENGTHS):
        raise SystemExit(f"unknown lengths or shape {sorted(unknown)}; see --help")
    shapes = _shapes(options, (case.shape,))
    changed = [replace(case, **values, lengths=law, shape=shape) for law in laws for shape in shapes]
    for each in changed:
        if each.pairs % each.batch:
            raise SystemExit(f"--pairs {each.pairs} is not a multiple of --batch {each.batch}")
    return changed


def _require_known(sides: Sequence[str]) -> None:
    for side in sides:
        try:
            name = SideName.parse(side).name
        except ValueError as error:
            raise SystemExit(str(error)) from error
        if name not in SIDES:
            raise SystemExit(f"unknown side {name!r}; known are {', '.join(SIDES)}")


def _measured(case: Case, sides: Sequence[str], options: argparse.Namespace, runs: int) -> CaseResult:
    return measure_case(case, sides, runs=runs, memory=not options.no_memory)


def _write(options: argparse.Namespace, figures: dict[str, Any], text: str, command: str) -> None:
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    _write_json(options, figures, command)


def _write_json(options: argparse.Namespace, figures: dict[str, Any], command: str) -> None:
    if options.json:
        record = {"command": command, "machine": machine.describe(), **figures}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _what_there_is() -> str:
    presets = [f"{name:14} {preset.about}" for name, preset in PRESETS.items()]
    presets += ["attention      tree attention against separate sequences, without a model"]
    presets += ["kernels        what a GPU has for attention and softmax, as a run measures and chooses it"]
    presets += ["pipeline       dealing, data preparation, the reference pass, the way to the first step"]
    presets += [f"full           {', '.join(FULL)}: hours on one core"]
    return "\n".join(presets) + "\n\n" + report.sides_list()
