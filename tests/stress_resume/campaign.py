"""Kills until there were enough, and compares whatever was brought to its end with the uninterrupted run."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stress_resume.kills import Kill, Straight, draw, run_and_kill, run_whole
from tests.training.conftest import Project

TIMES = ("seconds_per_step", "peak_memory_bytes")
KILLS_PER_RUN = 8
"""A run that was killed so often is left in peace to its end, and compared."""


@dataclass
class Report:
    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    """Runs that were killed, brought to their end and found equal."""
    unreached: int = 0
    """Kills that came after the end."""


def campaign(
    project: Project,
    kills: int,
    seed: int,
    arguments: tuple[str, ...] = (),
    *,
    say: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Kills runs of the project's recipe at `kills` random points; every one ends as the uninterrupted run.

    Raises:
        AssertionError: what differs, with the kills that led to it.
    """
    random_points, report = random.Random(seed), Report()
    straight = run_whole(project, "straight", arguments)
    say(f"uninterrupted: {straight.events} file system events, {straight.seconds:.1f} s")
    while len(report.kills) < kills:
        output = f"run-{report.runs}"
        done = _kill_one(project, output, arguments, random_points, straight, report, kills, say)
        assert_equal(project.folder / "straight", project.folder / output, done)
        say(f"{output}: equal after {len(done)} kills")
        shutil.rmtree(project.folder / output)
        shutil.rmtree(project.folder / f"{output}-cache")
        report.runs += 1
    return report


def _kill_one(
    project: Project,
    output: str,
    arguments: tuple[str, ...],
    random_points: random.Random,
    straight: Straight,
    report: Report,
    kills: int,
    say: Callable[[str], None],
) -> list[Kill]:
    """One run, killed until it got to its end; the kills it survived."""
    done: list[Kill] = []
    while len(report.kills) < kills and len(done) < KILLS_PER_RUN:
        kill = draw(random_points, straight)
        code = run_and_kill(project, output, arguments, kill)
        if code == 0:
            report.unreached += 1
            say(f"{output}: ended before a kill {kill}")
            return done
        done.append(kill)
        report.kills.append(kill)
        say(f"{output}: kill {len(report.kills)}, {kill}; then {_left(project.folder / output)}")
    run_whole(project, output, arguments)
    return done


def _left(output: Path) -> str:
    """What stands there after a kill."""
    folders = sorted(output.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    found = [path.name.split("-")[1] + ("" if (path / "complete.json").is_file() else " torn") for path in folders]
    parts = [f"checkpoints {', '.join(found)}" if found else "no checkpoint"]
    parts += [name for name in (".saving", "trained.json") if (output / name).exists()]
    return ", ".join(parts)


def assert_equal(straight: Path, killed: Path, kills: list[Kill]) -> None:
    """The same files, the same weights and metrics byte for byte, the same summary but for times."""
    story = "; ".join(map(str, kills)) or "no kill"
    names = [_names(folder) for folder in (straight, killed)]
    assert names[0] == names[1], f"{names[0] ^ names[1]} after: {story}"
    for name in ("metrics.jsonl", "recipe.yaml", *sorted(name for name in names[0] if name.endswith(".safetensors"))):
        same = (straight / name).read_bytes() == (killed / name).read_bytes()
        assert same, f"{name} differs after: {story}"
    summaries = [_summary(folder) for folder in (straight, killed)]
    assert summaries[0] == summaries[1], f"trained.json differs after: {story}"


def _names(folder: Path) -> set[str]:
    """Every file, hidden ones too; checkpoints by folder and file."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _summary(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    return {name: value for name, value in summary.items() if name not in TIMES}
