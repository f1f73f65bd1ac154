"""Shares, the seeded order and the held-out prompts."""

from __future__ import annotations

import numpy as np
import pytest

from inspo_hub.errors import DataError
from inspo_hub.pairs.mixture import heldout_rows, mix, mixed_order, row_keys, share_counts


@pytest.mark.parametrize(
    ("available", "weights", "counts"),
    [
        ([10, 20], [None, None], [10, 20]),
        ([100, 100], [3.0, 1.0], [100, 33]),
        ([30, 100], [0.5, 0.5], [30, 30]),
        ([30, 100, 7], [0.3, 0.7, None], [30, 70, 7]),
        ([30], [0.2], [30]),
        ([0, 5], [1.0, 1.0], [0, 0]),
    ],
)
def test_shares_without_repetition(available: list, weights: list, counts: list) -> None:
    assert share_counts(available, weights) == counts


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_above_zero(weight: float) -> None:
    with pytest.raises(DataError, match="above 0"):
        share_counts([1, 1], [weight, 1.0])


def test_splitmix_is_the_published_one() -> None:
    """The first outputs of splitmix64 seeded with 1234567, as its authors' C code prints them."""
    state = np.array([1234567], np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    first = mix(state)
    second = mix(state + golden)
    assert [int(first[0]), int(second[0])] == [6457827717110365317, 3203168211198807973]


def test_the_order_depends_on_the_seed_alone() -> None:
    source, row = np.repeat([0, 1], [5, 7]), np.concatenate([np.arange(5), np.arange(7)])
    order = mixed_order(source, row, [None, None], seed=1)
    assert sorted(order) == list(range(12))
    assert order.tolist() == mixed_order(source, row, [None, None], seed=1).tolist()
    assert order.tolist() != mixed_order(source, row, [None, None], seed=2).tolist()
    # the rows that are there do not move each other: without row 3 of source 0, the rest keeps its order
    kept = np.array([position for position in range(12) if position != 3])
    fewer = kept[mixed_order(source[kept], row[kept], [None, None], seed=1)]
    assert fewer.tolist() == [position for position in order if position != 3]


def test_the_order_is_the_same_on_every_machine() -> None:
    """Against the same mixing in Python's own integers."""
    mask = 2**64 - 1

    def finalise(value: int) -> int:
        z = (value + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    seeded = finalise((finalise(42) + 1) & mask)
    rows = [(0, 0), (0, 1), (1, 0), (3, 12345)]
    keys = row_keys(*np.array(rows).T, seed=42)
    assert keys.tolist() == [finalise((finalise((source + seeded) & mask) + row) & mask) for source, row in rows]
    assert keys[0] == 1581913778274440802  # and so the order of yesterday's run is that of tomorrow's


def test_a_share_takes_rows_from_all_over_the_source() -> None:
    source, row = np.repeat([0, 1], [1000, 100]), np.concatenate([np.arange(1000), np.arange(100)])
    order = mixed_order(source, row, [1.0, 1.0], seed=3)
    taken = row[order[source[order] == 0]]
    assert len(taken) == 100
    assert len(order) == 200
    assert 350 < taken.mean() < 650


def test_held_out_prompts_are_a_seeded_fraction() -> None:
    prompts = np.repeat(mix(np.arange(4000, dtype=np.uint64)), 2)
    out = heldout_rows(prompts, 0.1, seed=0)
    assert (out[::2] == out[1::2]).all()
    assert 0.08 < out.mean() < 0.12
    assert (out != heldout_rows(prompts, 0.1, seed=1)).any()
    assert (heldout_rows(prompts, 0.2, seed=0) >= out).all()  # a larger fraction holds out more, not others
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(DataError, match="between 0 and 1"):
            heldout_rows(prompts, fraction, seed=0)
