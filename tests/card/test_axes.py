"""Axes: whatever the values, the ticks are round, in order, told apart by their labels, and hold the values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspo_hub.card.axes import LARGEST, drawable, make_axis, thin_out

values = st.floats(-1e149, 1e149, allow_nan=False)


@given(st.lists(values, min_size=1, max_size=20))
def test_an_axis_holds_its_values_between_few_ticks_with_distinct_labels(numbers: list[float]) -> None:
    axis = make_axis(numbers)
    assert 2 <= len(axis.ticks) <= 8
    assert list(axis.ticks) == sorted(set(axis.ticks))
    slack = 1e-6
    assert all(-slack <= axis.position(number) <= 1 + slack for number in numbers)
    assert not any("nan" in label or "inf" in label for label in axis.labels)


@given(st.floats(-1e6, 1e6, allow_nan=False), st.floats(1e-4, 1e6))
def test_labels_tell_ticks_apart(low: float, width: float) -> None:
    axis = make_axis([low, low + width])
    if axis.ticks[1] - axis.ticks[0] > 1e-7:
        assert len(set(axis.labels)) == len(axis.labels)


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ([0.0, 1.0], ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
        ([-0.1, 0.1], ("−0.10", "−0.05", "0.00", "0.05", "0.10")),
        ([0, 12000], ("0", "2,500", "5,000", "7,500", "10,000", "12,500")),
        ([3.0, 3.0], ("2.6", "2.8", "3.0", "3.2", "3.4")),
        ([0.0, 0.0], ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
    ],
)
def test_ticks_are_the_round_numbers_people_write(numbers: list[float], labels: tuple[str, ...]) -> None:
    assert make_axis(numbers).labels == labels


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, LARGEST, None])
def test_what_cannot_be_drawn(value: float | None) -> None:
    assert not drawable(value)


@given(st.lists(st.tuples(values, values), max_size=60), st.integers(4, 20))
def test_a_thinned_curve_keeps_its_ends_and_extremes_in_order(points: list[tuple[float, float]], limit: int) -> None:
    kept = thin_out(points, limit)
    assert len(kept) <= limit or kept == points
    iterator = iter(points)
    assert all(point in iterator for point in kept), "a subsequence"
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert min(y for _, y in kept) == min(y for _, y in points)
        assert max(y for _, y in kept) == max(y for _, y in points)
