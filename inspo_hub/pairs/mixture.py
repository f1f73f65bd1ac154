"""Which rows take part and in which order: shares of sources, the held-out split, one seeded order.

Every choice is a hash of (seed, source, row) or of (seed, prompt), so it is the same on every process and machine, and
for every version of numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64

from inspo_hub.errors import DataError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: UInt64[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014): 64 well-mixed bits from 64 bits."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _seeded(seed: int, purpose: int) -> UInt64[np.ndarray, " one"]:
    return mix(mix(np.array([seed & (2**64 - 1)], np.uint64)) + np.uint64(purpose))


def row_keys(source: Int[np.ndarray, " rows"], row: Int[np.ndarray, " rows"], seed: int) -> UInt64[np.ndarray, " rows"]:
    """One random-looking number per row; sorting by it is the seeded order."""
    return mix(mix(source.astype(np.uint64) + _seeded(seed, 1)) + row.astype(np.uint64))


def heldout_rows(prompt_hash: UInt64[np.ndarray, " rows"], fraction: float, seed: int) -> Bool[np.ndarray, " rows"]:
    """Rows whose prompt falls into the held-out fraction: all rows of one prompt land on the same side."""
    if not 0 < fraction < 1:
        raise DataError(f"held-out fraction {fraction}", where="data.heldout", expected="a number between 0 and 1")
    return mix(prompt_hash ^ _seeded(seed, 2)) < np.uint64(int(fraction * 2.0**64))


def share_counts(available: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """Rows to take of each source.

    A source without a weight gives every row once. The weighted sources give rows in the proportion of their weights,
    as many as there are before the first of them runs out; no row is ever repeated.
    """
    for weight in weights:
        if weight is not None and not weight > 0:
            raise DataError(f"weight {weight}", where="data.train.weight", expected="a number above 0, or none")
    weighted = [(n, weight) for n, weight in zip(available, weights, strict=True) if weight is not None]
    rows_per_weight = min((n / weight for n, weight in weighted), default=0.0)
    return [
        n if weight is None else min(n, int(rows_per_weight * weight + 1e-9))
        for n, weight in zip(available, weights, strict=True)
    ]


def mixed_order(
    source: Int[np.ndarray, " rows"], row: Int[np.ndarray, " rows"], weights: Sequence[float | None], seed: int
) -> Int[np.ndarray, " taken"]:
    """Positions of the rows that take part, in their seeded order."""
    keys = row_keys(source, row, seed)
    order = np.argsort(keys, kind="stable")
    counts = share_counts([int((source == number).sum()) for number in range(len(weights))], weights)
    rank = np.zeros(len(source), dtype=np.int64)
    for number in range(len(weights)):
        mine = order[source[order] == number]
        rank[mine] = np.arange(len(mine))
    return order[rank[order] < np.asarray(counts)[source[order]]]
