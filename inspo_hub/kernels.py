"""Which of several kernels computes a thing: the fastest of those that agree with plain torch, measured here.

Which one that is depends on the GPU, the shapes and the versions of the libraries, so nobody can write it down. A run
measures it once before its first forward; the result is kept by machine and shape, so that the next run and a resumed
one take the same kernel.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspo_hub.stopwatch import seconds_of

log = logging.getLogger(__name__)

ROUNDS = 5
_HOPELESS = 4.0
"""A candidate this many times slower than the fastest, warm, is not timed again."""
_PACKAGES = ("torch", "triton", "flash-attn", "liger-kernel")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way of computing the thing."""

    name: str
    run: Callable[[], Sequence[Tensor]]
    """Computes it once, with its gradients; returns what all candidates must agree on."""
    prepare: Callable[[], Any] | None = None
    """What is done once for `runs_per_prepare` runs, such as a mask that all layers share."""
    runs_per_prepare: int = 1


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which kernel was chosen, and against what."""

    name: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Of one run, by candidate; empty where there was only one."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Candidates that failed or computed something else, and how."""

    def __str__(self) -> str:
        best = self.milliseconds.get(self.name)
        if best is None:
            return self.name
        others = sorted((ms, name) for name, ms in self.milliseconds.items() if name != self.name)
        told = [f"{name} {ms / best:.1f} times as long" for ms, name in others]
        told += [f"{name} refused: {why}" for name, why in self.refused.items()]
        return f"{self.name}, {best:.2f} ms ({', '.join(told)})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose(candidates: Sequence[Candidate], *, tolerance: float, device: torch.device) -> Choice:
    """Run every candidate, drop those that fail or disagree with the first, and time the others in turn.

    Args:
        candidates: the first is the one that is always right.
        tolerance: largest difference from the first one's results, relative to the largest value of each.
    """
    first = candidates[0]
    if len(candidates) == 1:
        return Choice(name=first.name)
    expected = [x.detach().double() for x in first.run()]
    refused: dict[str, str] = {}
    seconds = {first.name: [_timed(first, device)]}
    for candidate in candidates[1:]:
        problem = _problem(candidate, expected, tolerance)
        if problem is None:
            seconds[candidate.name] = [_timed(candidate, device)]
        else:
            refused[candidate.name] = problem
    bar = _HOPELESS * min(times[0] for times in seconds.values())
    hopeful = [candidate for candidate in candidates if seconds.get(candidate.name, [torch.inf])[0] <= bar]
    for _ in range(ROUNDS if len(hopeful) > 1 else 0):
        for candidate in hopeful:
            seconds[candidate.name].append(_timed(candidate, device))
    # The first timed run still pays for caches and clocks that the others find warm.
    milliseconds = {name: 1000 * statistics.median(times[1:] or times) for name, times in seconds.items()}
    return Choice(
        name=min((candidate.name for candidate in hopeful), key=milliseconds.__getitem__),
        milliseconds=milliseconds,
        refused=refused,
    )


def _problem(candidate: Candidate, expected: Sequence[Tensor], tolerance: float) -> str | None:
    """Why a candidate cannot be used; None where it can."""
    try:
        actual = [x.detach().double() for x in candidate.run()]
    except Exception as error:  # noqa: BLE001 - whatever a kernel of another library may raise, there is one that works
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    for a, e in zip(actual, expected, strict=True):
        worst = float((a - e).abs().max() / e.abs().max().clamp_min(1e-30))
        if not worst <= tolerance:
            return f"it differs by {worst:.1e}, {tolerance:.0e} allowed"
    return None


def _timed(candidate: Candidate, device: torch.device) -> float:
    """Seconds of one run, with its share of what is prepared for several."""
    prepared = 0.0
    if candidate.prepare is not None:
        prepared = seconds_of(candidate.prepare, device) / candidate.runs_per_prepare
    return prepared + seconds_of(candidate.run, device)


def remembered(
    what: Mapping[str, Any], measure: Callable[[], Choice], *, device: torch.device, folder: Path | None
) -> Choice:
    """The choice that was made for the same thing on such a machine before, or a new one, which is then kept.

    Args:
        what: the thing and its shapes, as JSON has them.
        folder: where choices are kept, a file each; None keeps nothing.
    """
    if folder is None:
        return measure()
    key = {**what, **_machine(device)}
    path = folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]}.json"
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # none yet, or not one of ours: measured anew
        return Choice(**json.loads(path.read_text(encoding="utf-8"))["choice"])
    choice = measure()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps({"choice": choice.to_json(), "of": key}, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return choice


def _machine(device: torch.device) -> dict[str, Any]:
    """What a choice depends on beside the shapes."""
    versions = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "packages": versions}
