"""Runs the sides of a case interleaved and keeps every figure: seconds by round, loss, gradient, peak memory."""

from __future__ import annotations

import gc
import logging
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from inspo_hub.cost import pair_flops
from inspo_hub.stopwatch import synchronize
from tests.bench.case import Case
from tests.bench.memory import peak_memory
from tests.bench.sides import Side, SideName, SideUnavailable, make_side
from tests.bench.workload import Workload

log = logging.getLogger(__name__)

Clock = Literal["cpu", "wall"]
_TOLERANCE = {"float32": (1e-4, 2e-3), "bfloat16": (2e-2, 1e-1)}
"""By how much sides that compute the same may differ, relative: loss, norm of the gradient."""


class Disagreement(Exception):
    """Two sides that should compute the same do not: their times would not be comparable."""


@dataclass(kw_only=True)
class SideResult:
    """One side of one case."""

    note: str = ""
    computes: str = ""
    unavailable: str = ""
    loss: float = math.nan
    gradient_norm: float = math.nan
    wall: list[float] = field(default_factory=list)
    """Seconds of each round."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time of each round, all threads together."""
    peak_bytes: int | None = None
    """Most memory that a step takes above the policy's weights; the weights of a reference count where one is held."""
    model_flops: float | None = None
    """What the pairs need, without recomputation; for sides of ours."""


@dataclass(kw_only=True)
class CaseResult:
    case: Case
    clock: Clock
    lengths: list[tuple[int, int, int]]
    """Prompt, chosen and rejected tokens of each pair."""
    sides: dict[str, SideResult]

    def seconds(self, side: str) -> list[float]:
        result = self.sides[side]
        return result.cpu if self.clock == "cpu" else result.wall

    def median(self, side: str) -> float:
        return statistics.median(self.seconds(side))

    def ratios(self, side: str, baseline: str) -> list[float]:
        """Each round's own ratio: what slows the machine down slows both."""
        return [a / b for a, b in zip(self.seconds(side), self.seconds(baseline), strict=True)]

    def ratio(self, side: str, baseline: str) -> float:
        return statistics.median(self.ratios(side, baseline))

    def measured(self, side: str) -> bool:
        return side in self.sides and not self.sides[side].unavailable

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case.to_json(),
            "clock": self.clock,
            "lengths": self.lengths,
            "sides": {name: vars(side) for name, side in self.sides.items()},
        }


def measure_case(case: Case, names: Sequence[str], *, runs: int, memory: bool) -> CaseResult:
    """All rounds of a case.

    Raises:
        Disagreement: sides of the same label differ in loss or gradient.
    """
    log.info("%s", case)
    workload = Workload(case)
    results = {name: SideResult() for name in names}
    sides: dict[str, Side] = {}
    for name in names:
        try:
            sides[name] = make_side(name, workload)
        except SideUnavailable as reason:
            results[name].unavailable = str(reason)
    for name in list(sides):
        side, result = sides[name], results[name]
        result.note, result.computes = side.note, side.computes
        result.model_flops = _model_flops(case, workload, name)
        try:
            result.loss, result.gradient_norm = _first_step(workload, side)
        except torch.OutOfMemoryError:
            # On a GPU the largest model without checkpointing: the other sides still have their say.
            result.unavailable, result.computes = "out of memory", ""
            del sides[name], side
            _free(workload)
            continue
        log.info("%s warm, loss %.4f", name, result.loss)
    _require_agreement(case, results)
    order = list(sides)
    for run in range(runs):
        for name in order[run % len(order) :] + order[: run % len(order)]:
            wall, cpu = _timed_step(workload, sides[name])
            results[name].wall.append(wall)
            results[name].cpu.append(cpu)
        log.info("round %d of %d", run + 1, runs)
    if memory:
        for name, peak in peak_memory(workload, sides).items():
            results[name].peak_bytes = peak
    lengths = [(len(pair.prompt), len(pair.chosen), len(pair.rejected)) for pair in workload.pairs]
    return CaseResult(case=case, clock=clock_of(case), lengths=lengths, sides=results)


def clock_of(case: Case) -> Clock:
    """Processor time where one thread does all the work: other people's processes do not count. Else the wall clock."""
    return "cpu" if case.device == "cpu" and torch.get_num_threads() == 1 else "wall"


def _first_step(workload: Workload, side: Side) -> tuple[float, float]:
    """Loss and norm of the gradient of a step that is not timed."""
    workload.clear_gradients()
    loss = float(side.step())
    gradients = [p.grad.float().norm() for p in workload.policy.parameters() if p.grad is not None]
    norm = float(torch.stack(gradients).norm()) if gradients else 0.0
    workload.clear_gradients()
    return loss, norm


def _free(workload: Workload) -> None:
    workload.clear_gradients()
    gc.collect()
    if workload.device.type == "cuda":
        torch.cuda.empty_cache()


def _timed_step(workload: Workload, side: Side) -> tuple[float, float]:
    """Seconds on the wall clock and of the processor."""
    workload.clear_gradients()
    gc.collect()
    synchronize(workload.device)
    wall, cpu = time.perf_counter(), time.process_time()
    side.step()
    synchronize(workload.device)
    elapsed = time.perf_counter() - wall, time.process_time() - cpu
    workload.clear_gradients()
    return elapsed


def _require_agreement(case: Case, results: dict[str, SideResult]) -> None:
    loss_tolerance, norm_tolerance = _TOLERANCE[case.dtype]
    first: dict[str, str] = {}
    for name, result in results.items():
        if not result.computes:
            continue
        other = results[first.setdefault(result.computes, name)]
        same_loss = math.isclose(result.loss, other.loss, rel_tol=loss_tolerance, abs_tol=loss_tolerance)
        same_norm = math.isclose(
            result.gradient_norm, other.gradient_norm, rel_tol=norm_tolerance, abs_tol=norm_tolerance**2
        )
        if not (same_loss and same_norm):
            raise Disagreement(
                f"{case}: {name} has loss {result.loss:.6f} and gradient {result.gradient_norm:.6f}, "
                f"{first[result.computes]} {other.loss:.6f} and {other.gradient_norm:.6f}"
            )


def _model_flops(case: Case, workload: Workload, name: str) -> float | None:
    """FLOPs of the pairs under a conditioning of ours, as MFU counts them: no recomputation."""
    from inspo_hub.conditioning import CONDITIONINGS

    side = SideName.parse(name)
    if side.name not in CONDITIONINGS or side.layout == "flat":
        return None
    return float(
        sum(
            pair_flops(
                case.model.cost,
                (len(pair.prompt), len(pair.chosen), len(pair.rejected)),
                scores=CONDITIONINGS[side.name]().scores,
                separator=case.separator,
                alternative_gradient=side.alternative_gradient,
                head_recomputed=False,
            ).total
            for pair in workload.pairs
        )
    )
