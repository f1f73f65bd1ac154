"""Where a run is killed: at one of its file system events, at a moment, or while it writes a checkpoint."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.training.conftest import Project

SITE = Path(__file__).parent / "site"
PATIENCE_S = 300
Kind = Literal["event", "moment", "saving", "reference"]


@dataclass(frozen=True, kw_only=True)
class Straight:
    """What the uninterrupted run was like, to draw points from."""

    events: int
    """File system events in its output and its cache."""
    seconds: float
    """From its first file to its end."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    kind: Kind
    event: int = 0
    """The file system event that does not happen, from 1."""
    after_s: float = 0.0
    """Seconds after what is waited for: the first file, a new checkpoint folder, the reference cache."""
    checkpoint: int = 0
    """The how many-th new checkpoint folder is waited for, from 1."""

    def __str__(self) -> str:
        where = {
            "event": f"at file system event {self.event}",
            "moment": f"{self.after_s:.2f} s after the first file",
            "saving": f"{self.after_s * 1e3:.0f} ms into save {self.checkpoint}",
            "reference": f"{self.after_s * 1e3:.0f} ms after the reference cache was made",
        }
        return where[self.kind]


def draw(random: random.Random, straight: Straight) -> Kill:
    """One kill; a run that goes on is shorter, so that some are never reached."""
    kind: Kind = random.choices(["event", "moment", "saving", "reference"], [4, 2, 3, 1])[0]
    if kind == "event":
        return Kill(kind=kind, event=random.randint(1, straight.events))
    if kind == "moment":
        return Kill(kind=kind, after_s=random.uniform(0, straight.seconds))
    if kind == "saving":
        return Kill(kind=kind, checkpoint=random.randint(1, 4), after_s=random.expovariate(1 / 0.01))
    return Kill(kind=kind, after_s=random.uniform(0, 0.4))


def environment(project: Project, output: str, **extra: str) -> dict[str, str]:
    """The project's, with a cache that belongs to the output, and the watcher at work."""
    cache = project.folder / f"{output}-cache"
    watched = os.pathsep.join([str(project.folder / output), str(cache)])
    path = os.pathsep.join([str(SITE), *filter(None, [project.environment().get("PYTHONPATH")])])
    return {
        **project.environment(),
        "INSPO_HUB_CACHE": str(cache),
        "PYTHONPATH": path,
        "STRESS_WATCH": watched,
        **extra,
    }


def run_whole(project: Project, output: str, arguments: tuple[str, ...]) -> Straight:
    """The command, uninterrupted."""
    count = project.folder / "events"
    process = _start(project, output, arguments, STRESS_COUNT=str(count))
    started = _wait_for(process, lambda: (project.folder / output).is_dir())
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    return Straight(events=int(count.read_text()), seconds=time.monotonic() - started)


def run_and_kill(project: Project, output: str, arguments: tuple[str, ...], kill: Kill) -> int:
    """The same command, killed; its exit code: -9, or 0 where it had ended before."""
    extra = {"STRESS_KILL_AT": str(kill.event)} if kill.kind == "event" else {}
    before = _checkpoints(project.folder / output)
    process = _start(project, output, arguments, **extra)
    if kill.kind != "event":
        conditions = {
            "moment": lambda: (project.folder / output / "lock.json").is_file(),
            "saving": lambda: len(_checkpoints(project.folder / output) - before) >= kill.checkpoint,
            "reference": lambda: any((project.folder / f"{output}-cache").glob("reference/*")),
        }
        _wait_for(process, conditions[kill.kind])
        time.sleep(kill.after_s)
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, -signal.SIGKILL), f"after {kill} it failed by itself:\n{errors}"
    return process.returncode


def _start(project: Project, output: str, arguments: tuple[str, ...], **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        project.command(*arguments, output=output),
        env=environment(project, output, **extra),
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(process: subprocess.Popen[str], condition: object) -> float:
    """When the condition became true, or the process ended."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.0005)
    return time.monotonic()


def _checkpoints(output: Path) -> set[str]:
    folder = output / "checkpoints"
    return set(os.listdir(folder)) if folder.is_dir() else set()
