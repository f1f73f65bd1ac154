"""Axis arithmetic of the charts: ranges, round ticks, labels, and long series made short. Plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LARGEST = 1e150
"""Beyond this a difference of two values may overflow; such a value is not drawn."""
SMALLEST = 1e-100
"""Nearer to zero than this a value is drawn as zero."""
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values, the round values on it, and how they are written."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]

    def position(self, value: float) -> float:
        """Where the value lies between `low` (0) and `high` (1)."""
        return (value - self.low) / (self.high - self.low)


def drawable(value: float | None) -> bool:
    """Whether a value can be drawn: a finite number that arithmetic on an axis does not overflow."""
    return value is not None and math.isfinite(value) and abs(value) < LARGEST


def make_axis(values: Sequence[float], *, max_ticks: int = 6) -> Axis:
    """An axis that starts and ends on round values and holds all of `values`, which are drawable and not none."""
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, SMALLEST):
        room = largest * 0.1 if largest > SMALLEST else 1.0  # one value only, or too close together to tell apart
        low, high = low - room if low else 0.0, high + room
    step = _round_step((high - low) / max(1, max_ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, tuple(_tick_label(tick, step) for tick in ticks))


def _round_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(multiple * power for multiple in (*_ROUND, 20.0) if multiple * power >= rough * (1 - 1e-9))


def _tick_label(value: float, step: float) -> str:
    """The value with as many decimals as the step has, thousands apart, and a minus sign as typography writes it."""
    if abs(value) >= 1e7 or (step < 1e-5 and abs(value) < 1e-2):
        text = "0" if value == 0 else f"{value:.4g}"
    else:
        decimals = max(0, -math.floor(math.log10(step)) + (1 if _needs_half(step) else 0))
        text = f"{value:,.{min(decimals, 8)}f}"
    text = text.removeprefix("-") if not text.strip("-0.,") else text  # no -0
    return text.replace("-", "−")


def _needs_half(step: float) -> bool:
    mantissa = step / 10.0 ** math.floor(math.log10(step))
    return abs(mantissa - 2.5) < 1e-6


def thin_out(points: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """At most `limit` points of a long curve: first, last, and the lowest and highest of each stretch between."""
    if len(points) <= limit:
        return list(points)
    stretches = max(1, (limit - 2) // 2)
    inner = points[1:-1]
    kept = {0, len(points) - 1}
    for number in range(stretches):
        start, end = number * len(inner) // stretches, (number + 1) * len(inner) // stretches
        stretch = range(start, end)
        if stretch:
            kept.add(1 + min(stretch, key=lambda index: inner[index][1]))
            kept.add(1 + max(stretch, key=lambda index: inner[index][1]))
    return [points[index] for index in sorted(kept)]
