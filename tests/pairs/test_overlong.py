"""The overlong policy against an oracle that takes one token at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspo_hub.errors import DataError
from inspo_hub.pairs.overlong import NO_LIMIT, Limits, cut_rows, path_lengths


def longest_path(prompt: int, chosen: int, rejected: int, limit: int, limits: Limits) -> int:
    if not limits.conditioned:
        return prompt + max(chosen, rejected)
    one = min(rejected, limit) + limits.separator_tokens + chosen
    other = min(chosen, limit) + limits.separator_tokens + rejected
    return prompt + max(one, other)


def oracle(prompt: int, chosen: int, rejected: int, limits: Limits) -> tuple[int, int, int, int]:
    """One token after the other: of the alternative down to 1, of the prompt down to its share, of the responses."""
    limit = limits.alternative_cap
    if longest_path(prompt, chosen, rejected, limit, limits) <= limits.max_length:
        return prompt, chosen, rejected, NO_LIMIT
    limit = min(limit, max(chosen, rejected))
    full = limit
    while longest_path(prompt, chosen, rejected, limit, limits) > limits.max_length:
        if limits.conditioned and limit > 1:
            limit -= 1
        elif prompt > limits.kept_prompt:
            prompt -= 1
        elif chosen >= rejected:
            chosen -= 1
        else:
            rejected -= 1
    return prompt, chosen, rejected, limit if limit < full else NO_LIMIT


lengths = st.integers(1, 60)
some_limits = st.builds(
    Limits,
    max_length=st.integers(16, 80),
    conditioned=st.booleans(),
    separator_tokens=st.integers(0, 5),
    max_alternative_tokens=st.none() | st.integers(1, 40),
    prompt_floor=st.integers(2, 4),
)


@settings(max_examples=250, deadline=None)
@given(rows=st.lists(st.tuples(lengths, lengths, lengths), min_size=1, max_size=8), limits=some_limits)
def test_cuts_are_those_of_the_oracle_and_every_path_fits(rows: list[tuple[int, int, int]], limits: Limits) -> None:
    before = np.array(rows)
    cuts = cut_rows(before, limits)
    for row, kept, limit, taken in zip(rows, cuts.lengths, cuts.max_alternative, cuts.taken, strict=True):
        prompt, chosen, rejected, expected_limit = oracle(*row, limits)
        assert tuple(kept) == (prompt, chosen, rejected)
        effective = min(int(limit), limits.alternative_cap, max(chosen, rejected))
        assert effective == min(expected_limit, limits.alternative_cap, max(chosen, rejected))
        assert (
            longest_path(*(int(n) for n in kept), int(min(limit, limits.alternative_cap)), limits) <= limits.max_length
        )
        assert (kept >= 1).all()
        assert limit >= 1
        assert tuple(taken[:3]) == tuple(np.array(row) - kept)
    after = path_lengths(cuts.lengths, limits, cuts.max_alternative)
    over = path_lengths(before, limits) > limits.max_length
    assert (after <= limits.max_length).all()
    assert (cuts.taken[~over] == 0).all()
    assert (cuts.max_alternative[~over] == NO_LIMIT).all()
    assert (cuts.taken[over].sum(axis=1) > 0).all()


def test_order_alternative_then_prompt_then_response() -> None:
    limits = Limits(100, conditioned=True, separator_tokens=10)
    cuts = cut_rows(np.array([[20, 30, 60], [60, 30, 40], [60, 30, 88], [10, 95, 99]]), limits)
    assert cuts.lengths.tolist() == [[20, 30, 60], [50, 30, 39], [50, 30, 39], [10, 79, 79]]
    assert cuts.max_alternative.tolist() == [10, 1, 1, 1]
    assert cuts.taken[0].tolist() == [0, 0, 0, 20 + 50]


@pytest.mark.parametrize(("max_length", "fits"), [(30, False), (60, True)])
def test_a_max_length_that_holds_nothing_is_refused(max_length: int, fits: bool) -> None:
    limits = Limits(max_length, conditioned=True, separator_tokens=20, prompt_floor=5)
    if fits:
        limits.check()
    else:
        with pytest.raises(DataError, match="max_length 30 leaves no token for a response"):
            limits.check()
