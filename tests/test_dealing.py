"""Steps, shares and micro-batches: nothing lost, nothing twice, balanced, filled, and the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain

import numpy as np
import pytest

from inspo_hub.dealing import (
    deal_step,
    largest_micro_batch,
    pack_micro_batches,
    plan_step,
    step_indices,
    steps_within,
    worst_case_pairs,
)


def tree_lengths(n_pairs: int, seed: int) -> np.ndarray:
    """Tokens of symmetric trees, |x|+2|w|+2|l|, at UltraFeedback-like lengths and MaxLen 2048 per path."""
    draw = np.random.default_rng(seed)
    prompt = np.exp(np.log(120) + 0.95 * draw.standard_normal(n_pairs)).clip(4, 1000).astype(int)
    level = np.log(280) + 0.65 * draw.standard_normal(n_pairs)
    chosen, rejected = (
        np.exp(level + 0.35 * draw.standard_normal(n_pairs)).clip(1, 1500).astype(int) for _ in range(2)
    )
    return prompt + 2 * chosen + 2 * rejected


# --- steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_pairs", "per_step", "epochs"), [(10, 4, 1), (10, 4, 3), (8, 4, 2), (3, 8, 2), (1, 1, 1)])
def test_every_epoch_takes_every_pair_once_and_keeps_its_uneven_last_step(
    n_pairs: int, per_step: int, epochs: int
) -> None:
    steps = step_indices(n_pairs, per_step, epochs, seed=1)
    per_epoch = -(-n_pairs // per_step)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        own = [step.tolist() for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch]]
        assert sorted(chain(*own)) == list(range(n_pairs))
        assert [len(step) for step in own[:-1]] == [per_step] * (per_epoch - 1)
        assert len(own[-1]) == n_pairs - per_step * (per_epoch - 1)


def test_the_order_depends_on_the_seed_and_the_epoch_only() -> None:
    def flat(per_step: int, seed: int) -> list[int]:
        return [int(row) for step in step_indices(100, per_step, 2, seed) for row in step]

    assert flat(7, seed=3) == flat(7, seed=3)
    assert flat(7, seed=3) == flat(32, seed=3), "the size of a step must not change the order"
    assert flat(7, seed=3) != flat(7, seed=4)
    assert flat(7, seed=3)[:100] != flat(7, seed=3)[100:], "each epoch has its own order"
    assert flat(7, seed=3)[:100] != sorted(flat(7, seed=3)[:100])


def test_the_order_is_fixed_for_good() -> None:
    # Published recipes name a seed: another order under the same seed would break their reproduction.
    assert [step.tolist() for step in step_indices(8, 3, 1, seed=42)] == [[5, 1, 4], [3, 2, 0], [7, 6]]


def test_any_step_can_be_read_alone() -> None:
    steps = step_indices(50, 8, 3, seed=0)
    forwards = [step.tolist() for step in steps]
    assert [steps[index].tolist() for index in reversed(range(len(steps)))] == forwards[::-1]
    assert steps[-1].tolist() == forwards[-1]
    with pytest.raises(IndexError):
        steps[len(steps)]


def test_a_part_of_an_epoch_takes_the_first_pairs_of_its_order() -> None:
    half, whole = step_indices(10, 2, 1.5, seed=5), step_indices(10, 2, 2, seed=5)
    flat = [int(row) for step in whole for row in step]
    assert [int(row) for step in half for row in step] == flat[:15]
    assert [len(step) for step in half] == [2, 2, 2, 2, 2, 2, 2, 1]
    assert sum(map(len, step_indices(10, 4, 0.1, seed=0))) == 1
    assert sum(map(len, step_indices(10, 4, 1.1, seed=0))) == 11, "1.1 - 1 is a little more than 0.1 in binary"


def test_max_steps_ends_the_run_early_and_changes_no_step() -> None:
    whole, short = step_indices(10, 4, 2, seed=0), step_indices(10, 4, 2, seed=0, max_steps=4)
    assert [step.tolist() for step in short] == [step.tolist() for step in whole][:4]
    assert len(step_indices(10, 4, 1, seed=0, max_steps=99)) == 3


def test_dealing_needs_neither_torch_nor_numpy_to_be_imported() -> None:
    code = "import sys, inspo_hub.dealing as d; d.plan_step([1], [1], n_processes=2, tokens_per_microbatch=1); "
    subprocess.run([sys.executable, "-c", code + "assert not {'torch', 'numpy'} & set(sys.modules)"], check=True)


# --- dealing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_processes", [1, 2, 3, 8, 20])
def test_dealing_gives_each_position_to_one_process(n_processes: int) -> None:
    shares = deal_step(tree_lengths(16, seed=0), n_processes)
    assert len(shares) == n_processes
    assert sorted(chain(*shares)) == list(range(16))


def test_eight_processes_get_the_same_work_within_five_percent() -> None:
    for seed in range(20):
        costs = tree_lengths(8 * 16, seed)
        work = [costs[share].sum() for share in deal_step(costs, 8)]
        assert max(work) <= 1.05 * np.mean(work)
        unsorted = [costs[start::8].sum() for start in range(8)]
        assert max(work) < max(unsorted), "no better than taking turns"


def test_dealing_breaks_ties_by_index() -> None:
    assert deal_step([1, 1, 1, 1, 1], 2) == [[0, 2, 4], [1, 3]]
    assert deal_step([], 2) == [[], []]


# --- filling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 700, 4096, 8192, 10**9])
def test_no_micro_batch_is_over_the_budget_unless_one_pair_is(budget: int) -> None:
    tokens = tree_lengths(128, seed=1)
    packed = pack_micro_batches(tokens, budget)
    assert sorted(chain(*packed)) == list(range(128))
    totals = [int(tokens[members].sum()) for members in packed]
    assert all(total <= budget or len(members) == 1 for total, members in zip(totals, packed, strict=True))
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("budget", [8192, 16384])
def test_a_step_of_128_pairs_wastes_less_than_two_percent_of_the_budget(budget: int) -> None:
    # The last micro-batch holds what is left over, whatever the packing: it says nothing about waste.
    wastes = []
    for seed in range(20):
        tokens = tree_lengths(128, seed)
        totals = [int(tokens[members].sum()) for members in pack_micro_batches(tokens, budget)]
        full = [total for total in totals[:-1] if total <= budget]
        wastes.append(1 - sum(full) / (budget * len(full)))
        assert len(totals) <= -(-int(tokens.sum()) // budget) + 1
    assert np.mean(wastes) <= 0.02, wastes


def test_best_fit_takes_the_fullest_micro_batch_that_has_room() -> None:
    assert pack_micro_batches([6, 5, 4, 5], 10) == [[0, 2], [1, 3]]
    # The 2 fits beside the 7 and beside the two 4s, and fills the latter; the first that has room is the 7.
    assert pack_micro_batches([7, 4, 4, 2], 10) == [[1, 2, 3], [0]]
    assert pack_micro_batches([12, 3], 10) == [[0], [1]]
    assert pack_micro_batches([], 10) == []


# --- a whole step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_processes", [1, 2, 4, 8, 40])
@pytest.mark.parametrize("budget", [2000, 8192])
def test_a_step_trains_the_same_pairs_on_any_number_of_processes(n_processes: int, budget: int) -> None:
    tokens = tree_lengths(32, seed=2)
    plan = plan_step(tokens, tokens, n_processes=n_processes, tokens_per_microbatch=budget)
    assert plan == plan_step(tokens, tokens, n_processes=n_processes, tokens_per_microbatch=budget)
    assert sorted(row for process in plan for members in process for row in members) == list(range(32))
    assert len({len(process) for process in plan}) == 1, "a collective would wait for ever"
    for process in plan:
        empty = [not members for members in process]
        assert empty == sorted(empty), "empty micro-batches come last"


def test_a_process_without_pairs_still_joins() -> None:
    assert plan_step([5.0], [7], n_processes=3, tokens_per_microbatch=4) == [[[0]], [[]], [[]]]


# --- the worst case ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [500, 4096, 20000])
def test_the_worst_case_is_as_large_as_any_micro_batch_of_the_run(budget: int) -> None:
    tokens = tree_lengths(500, seed=3)
    worst = int(tokens[worst_case_pairs(tokens, budget)].sum())
    largest = 0
    for step in step_indices(500, 32, 2, seed=0):
        packed = pack_micro_batches(tokens[step], budget)
        largest = max(largest, int(tokens[step][largest_micro_batch(packed, tokens[step])].sum()))
    assert worst >= 0.99 * largest
    assert worst <= max(budget, int(tokens.max()))


def test_the_largest_micro_batch() -> None:
    assert largest_micro_batch([[0], [1, 2], []], [5, 3, 4]) == [1, 2]
    assert largest_micro_batch([], [5]) == []


def test_steps_within_a_budget_of_tokens_are_the_first_that_fit() -> None:
    steps, tokens = [[0, 1], [2, 3], [4]], [3, 4, 1, 2, 50]
    assert [steps_within(steps, tokens, most) for most in (6, 7, 9, 10, 59, 60, 1000)] == [0, 1, 1, 2, 2, 3, 3]
