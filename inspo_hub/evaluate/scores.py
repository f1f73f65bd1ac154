"""Estimates from judged answers, numpy only: win rate, difference of two systems, KL, each with error and interval.

Several answers to one prompt are not independent, and two systems that answer the same prompts are not either: every
estimate is of a mean over rows, its error and its interval are clustered by prompt, and a difference is a mean of
differences row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_DRAWS_AT_ONCE = 2_000_000  # resampled cluster indices in memory at a time


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its clustered standard error and its bootstrap interval."""

    value: float
    standard_error: float
    low: float
    high: float
    level: float
    """Coverage the interval aims at, 0.95 for a 95 % interval."""
    rows: int
    clusters: int

    def excludes(self, value: float) -> bool:
        """Whether the interval says that the true mean differs from `value`."""
        return not self.low <= value <= self.high

    def to_dict(self) -> dict[str, float | int | None]:
        """One JSON object; a number that does not exist (one cluster has no error) is null."""
        return {
            key: None if isinstance(number, float) and not math.isfinite(number) else number
            for key, number in asdict(self).items()
        }


def mean_estimate(
    values: ArrayLike,
    clusters: Sequence[object] | None = None,
    *,
    weights: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of `values` with its cluster-robust standard error and percentile bootstrap interval over clusters.

    Without clusters, or with one row in each, the error is std(values, ddof=1) / sqrt(n). With weights it is the
    weighted mean.
    """
    rows = np.asarray(values, dtype=np.float64)
    assert rows.ndim == 1
    assert len(rows) > 0, "an estimate needs at least one row"
    assert np.isfinite(rows).all(), "a failed judgement is counted apart, never averaged"
    per_row = np.ones_like(rows) if weights is None else np.asarray(weights, dtype=np.float64)
    assert per_row.shape == rows.shape, "one weight per row"
    sums, counts = _by_cluster(rows, per_row, clusters)
    value = float(per_row @ rows / per_row.sum())
    drawn = _resampled_means(sums, counts, resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=value,
        standard_error=_clustered_error(sums, counts, value),
        low=float(low),
        high=float(high),
        level=level,
        rows=len(rows),
        clusters=len(sums),
    )


def bootstrap_estimate(value: float, draws: ArrayLike, level: float, *, rows: int, clusters: int) -> Estimate:
    """A value that is no mean, with the standard deviation and the percentiles of its bootstrap draws."""
    drawn = np.asarray(draws, dtype=np.float64)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    error = float(drawn.std(ddof=1)) if clusters > 1 and len(drawn) > 1 else math.nan
    return Estimate(value, error, float(low), float(high), level, rows, clusters)


def win_values(scores: ArrayLike, other_scores: ArrayLike) -> Floats:
    """Per row 1 where the score is higher than the other system's, 0.5 at a tie, 0 where it is lower."""
    first, second = np.asarray(scores, dtype=np.float64), np.asarray(other_scores, dtype=np.float64)
    assert first.shape == second.shape, "both systems answer the same rows"
    return 0.5 + 0.5 * np.sign(first - second)


def win_rate(
    scores: ArrayLike,
    other_scores: ArrayLike,
    clusters: Sequence[object] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Share of rows on which a system scores higher than another, ties half."""
    values = win_values(scores, other_scores)
    return mean_estimate(values, clusters, level=level, resamples=resamples, seed=seed)


def difference(
    values: ArrayLike,
    other_values: ArrayLike,
    clusters: Sequence[object] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of values - other_values, row by row: the paired difference of two systems on the same rows."""
    first, second = np.asarray(values, dtype=np.float64), np.asarray(other_values, dtype=np.float64)
    assert first.shape == second.shape, "a paired difference needs the same rows on both sides"
    return mean_estimate(first - second, clusters, level=level, resamples=resamples, seed=seed)


def kl_divergence(
    logps: ArrayLike,
    reference_logps: ArrayLike,
    clusters: Sequence[object] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """KL(π‖π_ref) per response in nats, by sampling: mean of log π(y|x) - log π_ref(y|x) over y drawn from π.

    Unbiased only for answers that π itself sampled at temperature 1 with nothing cut off. Single rows may be negative.
    """
    return difference(logps, reference_logps, clusters, level=level, resamples=resamples, seed=seed)


def cluster_numbers(clusters: Sequence[object] | None, rows: int) -> tuple[NDArray[np.int64], int]:
    """(number of each row's cluster in order of first appearance, clusters); without clusters every row is its own."""
    if clusters is None:
        return np.arange(rows), rows
    assert len(clusters) == rows, "one cluster per row"
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64), len(numbers)


def _by_cluster(rows: Floats, weights: Floats, clusters: Sequence[object] | None) -> tuple[Floats, Floats]:
    """Weighted sum, and weight, of the rows of each cluster."""
    index, groups = cluster_numbers(clusters, len(rows))
    sums = np.bincount(index, weights * rows, minlength=groups).astype(np.float64)
    return sums, np.bincount(index, weights, minlength=groups).astype(np.float64)


def resampled_counts(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each cluster is drawn, `(clusters,)`, in each of `resamples` draws with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)


def _clustered_error(sums: Floats, counts: Floats, mean: float) -> float:
    """Square root of C/(C-1) · Σ_c (Σ_i (v_i - mean))² / n²; not a number with one cluster."""
    clusters = len(sums)
    if clusters < 2:
        return math.nan
    residuals = sums - counts * mean
    return float(np.sqrt(clusters / (clusters - 1) * np.square(residuals).sum()) / counts.sum())


def _resampled_means(sums: Floats, counts: Floats, resamples: int, seed: int) -> Floats:
    """Means of `resamples` draws of as many clusters as there are, with replacement."""
    rng = np.random.default_rng(seed)
    clusters = len(sums)
    means = np.empty(resamples)
    chunk = max(1, _DRAWS_AT_ONCE // clusters)
    for start in range(0, resamples, chunk):
        stop = min(start + chunk, resamples)
        drawn = rng.integers(clusters, size=(stop - start, clusters))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
