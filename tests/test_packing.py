"""Packing against the definition of a path: what every scored token reads, found again through the layout."""

from __future__ import annotations

from itertools import accumulate, combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspo_hub.attention import segments_of
from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.packing import PackedBatch, context_and_response, pack_pairs, packed_tokens, scores_of
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score
from tests.oracle import path_of

SCORE_SETS = [subset for size in range(1, 5) for subset in combinations(SCORES, size)]


def make_pairs(*lengths: tuple[int, int, int], limits: tuple[int | None, ...] = ()) -> list[PreferencePair]:
    """Pairs of the given prompt, chosen and rejected lengths; no two tokens of all of them are equal."""
    token = iter(range(1, 100_000))
    pairs = []
    for row, (prompt, chosen, rejected) in enumerate(lengths):
        parts = [[next(token) for _ in range(count)] for count in (prompt, chosen, rejected)]
        limit = limits[row] if row < len(limits) else None
        pairs.append(PreferencePair(*parts, row_id=f"row {row}", max_alternative_tokens=limit))
    return pairs


def paths_through(batch: PackedBatch) -> list[list[int]]:
    """For each position of the flattened rows, the tokens up to and including it along its path."""
    ids = batch.input_ids.flatten().tolist()
    if batch.layout is None:
        columns = [width for height, width in batch.rectangles for _ in range(height)]
        starts = [
            start for start, width in zip(accumulate(columns, initial=0), columns, strict=False) for _ in range(width)
        ]
        assert len(starts) == len(ids)
        return [ids[start : i + 1] for i, start in enumerate(starts)]
    paths: list[list[int]] = []
    for segment in segments_of(batch.layout.plan):
        context = [ids[k] for start, stop in segment.context for k in range(start, stop)]
        paths += [context + ids[segment.start : q + 1] for q in range(segment.start, segment.stop)]
    return paths


def check(pairs: list[PreferencePair], scores: tuple[Score, ...], **how: Any) -> PackedBatch:
    """Every scored token is predicted from exactly its path, at its path's position."""
    batch = pack_pairs(pairs, scores, **how)
    plain = {key: value for key, value in how.items() if key != "layout"}
    paths = paths_through(batch)
    assert batch.scores == tuple(score for score in SCORES if score in scores)
    for score in scores:
        scored = batch.scored[score]
        at = 0
        for pair, length in zip(pairs, scored.lengths.tolist(), strict=True):
            context, response = path_of(pair, score, **plain)
            assert context_and_response(pair, score, **plain) == (context, response)
            assert scored.targets[at : at + length].tolist() == response
            for token, position in enumerate(scored.positions[at : at + length].tolist()):
                assert paths[position] == context + response[:token]
                assert batch.position_ids.flatten()[position] == len(context) + token - 1
            at += length
        assert at == len(scored.targets) == len(scored.positions)
    lengths = [
        len(path_of(pair, score, **plain)[0] + path_of(pair, score, **plain)[1]) for pair in pairs for score in scores
    ]
    assert batch.longest_path == max(lengths)
    assert batch.tokens == sum(packed_tokens(pair, scores, **how) for pair in pairs)
    return batch


@pytest.mark.parametrize("scores", SCORE_SETS, ids=lambda scores: "+".join(scores))
@pytest.mark.parametrize("separator", [(), (9001,), (9001, 9002, 9003)], ids=["concat", "one", "three"])
@pytest.mark.parametrize("limit", [None, 0, 1, 3], ids=str)
@pytest.mark.parametrize("layout", ["tree", "flat"])
def test_every_scored_token_reads_its_path(scores: Any, separator: Any, limit: Any, layout: Any) -> None:
    pairs = make_pairs((5, 7, 4), (1, 1, 9), (8, 3, 1), (2, 1, 1))
    check(pairs, scores, separator=separator, max_alternative_tokens=limit, layout=layout)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=4),
    limits=st.lists(st.one_of(st.none(), st.integers(0, 10)), max_size=4),
    limit=st.one_of(st.none(), st.integers(0, 10)),
    separator=st.integers(0, 3),
    scores=st.sampled_from(SCORE_SETS),
    layout=st.sampled_from(["tree", "flat"]),
)
def test_any_pairs_any_limits(lengths: Any, limits: Any, limit: Any, separator: int, scores: Any, layout: Any) -> None:
    pairs = make_pairs(*lengths, limits=tuple(limits))
    separator_ids = list(range(9001, 9001 + separator))
    check(pairs, scores, separator=separator_ids, max_alternative_tokens=limit, layout=layout)


@pytest.mark.parametrize(
    ("conditioning", "tokens"),
    [("none", 10 + 20 + 30), ("symmetric", 10 + 2 * 20 + 2 * 30 + 2 * 3), ("averaged", 10 + 2 * 20 + 2 * 30 + 2 * 3)],
)
def test_a_tree_lays_each_part_out_once(conditioning: str, tokens: int) -> None:
    batch = check(make_pairs((10, 20, 30)), scores_of(conditioning), separator=(9001, 9002, 9003))
    assert batch.tokens == batch.input_ids.numel() == tokens
    assert not batch.rectangles


def test_plain_scores_are_free_where_the_alternative_is_whole() -> None:
    pairs = make_pairs((10, 20, 30), (4, 2, 6))
    symmetric = pack_pairs(pairs, ("chosen_given_rejected", "rejected_given_chosen"), separator=(9001,))
    assert pack_pairs(pairs, SCORES, separator=(9001,)).tokens == symmetric.tokens


def test_a_cut_alternative_that_nothing_scores_is_not_laid_out_whole() -> None:
    pairs = make_pairs((10, 20, 30))
    batch = check(pairs, ("chosen_given_rejected",), max_alternative_tokens=5)
    assert batch.tokens == 10 + 5 + 20
    assert check(pairs, ("rejected", "chosen_given_rejected"), max_alternative_tokens=5).tokens == 10 + 30 + 1 + 20


def test_the_smaller_of_both_limits_holds() -> None:
    for row, recipe in ((3, 8), (8, 3), (3, None)):
        pairs = make_pairs((4, 9, 9), limits=(row,))
        assert check(pairs, ("chosen_given_rejected",), max_alternative_tokens=recipe).tokens == 4 + 3 + 9


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_a_conditioning_is_its_scores(name: str) -> None:
    conditioning = CONDITIONINGS[name]()  # type: ignore[call-arg]
    pairs = make_pairs((3, 4, 5))
    for given_as in (name, conditioning, conditioning.scores):
        assert set(pack_pairs(pairs, given_as).scores) == set(conditioning.scores)


def test_lengths_and_row_ids_travel_with_the_batch() -> None:
    batch = pack_pairs(make_pairs((3, 4, 5), (2, 1, 7)), "none").to("cpu")
    assert batch.chosen_lengths.tolist() == [4, 1]
    assert batch.rejected_lengths.tolist() == [5, 7]
    assert batch.row_ids == ("row 0", "row 1")
    assert batch.pairs == 2


def test_flat_rows_are_padded_on_the_right() -> None:
    batch = pack_pairs(make_pairs((3, 4, 6)), "none", layout="flat")
    assert batch.layout is None
    assert batch.rectangles == ((2, 9),)
    assert batch.tokens == 16
    assert batch.input_ids.tolist() == [[1, 2, 3, *range(8, 14), 1, 2, 3, *range(4, 8), 0, 0]]
    assert batch.position_ids.tolist() == [[*range(9), *range(7), 0, 0]]


def test_flat_rows_of_similar_length_share_a_rectangle() -> None:
    pairs = make_pairs((100, 900, 850), (10, 20, 1), (400, 20, 100), (5, 6, 15))
    batch = pack_pairs(pairs, "none", layout="flat")
    assert batch.rectangles == ((2, 1000), (1, 500), (1, 420), (2, 30), (2, 11))
    padded = batch.input_ids.numel()
    assert padded - batch.tokens == 50 + 10
    one = pack_pairs(pairs, "none", layout="flat", one_rectangle=True)
    assert one.rectangles == ((8, 1000),)
    assert one.tokens == batch.tokens


@pytest.mark.parametrize("empty", ["prompt", "chosen", "rejected"])
def test_an_empty_part_is_refused(empty: str) -> None:
    parts = {"prompt": [1], "chosen": [2], "rejected": [3], empty: []}
    with pytest.raises(AssertionError, match="an empty part"):
        pack_pairs([PreferencePair(**parts)], "none")
