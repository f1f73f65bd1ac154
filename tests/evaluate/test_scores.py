"""Estimates against closed forms and against synthetic data whose truth is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inspo_hub.evaluate.scores import difference, kl_divergence, mean_estimate, win_rate, win_values


def clustered_error_oracle(values: np.ndarray, clusters: list[int]) -> float:
    """The cluster-robust error of a mean, written as its sum over pairs of rows that share a prompt."""
    residuals = values - values.mean()
    count = len(set(clusters))
    shared = np.equal.outer(np.array(clusters), np.array(clusters))
    return math.sqrt(count / (count - 1) * (np.outer(residuals, residuals) * shared).sum()) / len(values)


def test_win_values_count_a_tie_half() -> None:
    assert win_values([2.0, 1.0, 0.0], [1.0, 1.0, 1.0]).tolist() == [1.0, 0.5, 0.0]


def test_win_rate_and_error_equal_the_closed_forms() -> None:
    estimate = win_rate([1, 1, 1, 0, 0.5], [0, 0, 0, 1, 0.5])
    values = np.array([1, 1, 1, 0, 0.5])
    assert estimate.value == pytest.approx(0.7)
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(5))
    assert (estimate.rows, estimate.clusters) == (5, 5)


def test_the_win_rates_of_two_systems_against_each_other_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    there, back = win_rate(first, second), win_rate(second, first)
    assert there.value + back.value == pytest.approx(1.0)
    assert there.standard_error == pytest.approx(back.standard_error)
    assert there.low == pytest.approx(1 - back.high, abs=0.01)


def test_clustered_error_equals_the_sum_over_rows_of_one_prompt() -> None:
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 12, 60).tolist()
    values = rng.normal(size=60)
    assert mean_estimate(values, clusters).standard_error == pytest.approx(clustered_error_oracle(values, clusters))


def test_repeating_every_row_under_its_prompt_adds_no_information() -> None:
    values = np.random.default_rng(2).normal(size=80)
    once = mean_estimate(values, list(range(80)))
    thrice = mean_estimate(np.repeat(values, 3), np.repeat(np.arange(80), 3).tolist())
    unclustered = mean_estimate(np.repeat(values, 3))
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert unclustered.standard_error < 0.6 * once.standard_error


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(300):
        prompts = np.repeat(np.arange(60), 2)
        shared = np.repeat(rng.normal(size=60), 2)  # rows of one prompt move together
        estimate = mean_estimate(0.3 + shared + 0.5 * rng.normal(size=120), prompts.tolist(), resamples=300, seed=trial)
        held += estimate.low <= 0.3 <= estimate.high
    assert 0.90 <= held / 300 <= 0.98


def test_pairing_removes_what_both_systems_share() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.normal(size=300) * 5
    first, second = difficulty + rng.normal(size=300) + 0.5, difficulty + rng.normal(size=300)
    paired = difference(first, second)
    assert paired.value == pytest.approx(first.mean() - second.mean())
    assert paired.standard_error == pytest.approx((first - second).std(ddof=1) / math.sqrt(300))
    assert paired.standard_error < 0.3 * mean_estimate(first).standard_error
    assert paired.excludes(0.0)


def test_no_difference_is_not_excluded() -> None:
    values = np.random.default_rng(5).normal(size=200)
    assert not difference(values, values).excludes(0.0)
    assert win_rate(values, values).value == 0.5


def test_kl_by_sampling_reaches_the_closed_form() -> None:
    policy, reference = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    exact = float((policy * np.log(policy / reference)).sum())
    drawn = np.random.default_rng(6).choice(3, size=20_000, p=policy)
    estimate = kl_divergence(np.log(policy)[drawn], np.log(reference)[drawn])
    assert estimate.value == pytest.approx(exact, abs=4 * estimate.standard_error)
    assert estimate.standard_error < 0.02


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(7).normal(size=50)
    assert mean_estimate(values, seed=1) == mean_estimate(values, seed=1)
    assert mean_estimate(values, seed=1).low != mean_estimate(values, seed=2).low


def test_one_prompt_has_a_value_and_no_error() -> None:
    estimate = mean_estimate([1.0, 0.0], ["only", "only"])
    assert estimate.value == 0.5
    assert math.isnan(estimate.standard_error)
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["standard_error"] is None


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_nothing_is_averaged_that_was_not_judged(values: list[float]) -> None:
    with pytest.raises(AssertionError):
        mean_estimate(values)
