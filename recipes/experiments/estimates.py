"""Figures over seeds: mean, standard error over seeds, interval over seeds and prompts, and what it lets one say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
RESAMPLES = 4000
NO_DIFFERENCE = 0.03
"""Win rates nearer than this are called equal whatever the interval says: one task, one base, a few seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverSeeds:
    """A mean over seeds. `low` and `high` bound 95 % of a bootstrap that resamples seeds, and prompts within them."""

    value: float
    standard_error: float
    """Of the mean, from the spread of the seeds' means; not a number with one seed."""
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        error = "" if math.isnan(self.standard_error) else f" ± {100 * self.standard_error:.1f}"
        return f"{100 * self.value:.1f}{error}"

    @property
    def interval(self) -> str:
        return f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    @property
    def verdict(self) -> str:
        """In words, for a difference of win rates."""
        if self.low <= 0 <= self.high or abs(self.value) < NO_DIFFERENCE:
            return "no difference"
        return "better" if self.value > 0 else "worse"


def over_seeds(rows: Sequence[Floats], *, seed: int = 0) -> OverSeeds:
    """The mean of one value per prompt, `rows[seed][prompt]`, where every seed counts the same."""
    assert rows, "an estimate needs at least one seed"
    means = np.array([each.mean() for each in rows])
    error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else math.nan
    rng = np.random.default_rng(seed)
    drawn = np.zeros(RESAMPLES)
    within = np.stack([each[rng.integers(len(each), size=(RESAMPLES, len(each)))].mean(axis=1) for each in rows])
    # A seed that is drawn twice brings the same prompts twice: prompts are resampled once for each of its places.
    for _ in rows:
        order = rng.permutation(RESAMPLES)
        drawn += within[rng.integers(len(rows), size=RESAMPLES), order]
    low, high = np.quantile(drawn / len(rows), [0.025, 0.975])
    return OverSeeds(value=float(means.mean()), standard_error=error, low=float(low), high=float(high), seeds=len(rows))


def mean_and_error(values: Sequence[float], form: str = ".2f") -> str:
    """`mean ± standard error` over seeds; the value alone with one seed."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:{form}}"
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return f"{mean:{form}} ± {error:{form}}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns after the first are right-aligned."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
