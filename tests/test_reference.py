"""Reference scores: content keys, hits and misses, two writers at once, verification against the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inspo_hub.errors import TrainingError
from inspo_hub.pairs import PreferencePair
from inspo_hub.reference import Contexts, ReferenceCache, ReferenceIdentity, ReferenceScores, row_key
from inspo_hub.views import SCORES, Score

IDENTITY = ReferenceIdentity(
    description="initial policy", weights="abc", compute_dtype="float32", layout="tree", device_kind="cpu"
)
PAIRS = [
    PreferencePair(prompt=[1, 2], chosen=[3, 4, 5], rejected=[6], row_id="r0"),
    PreferencePair(prompt=[1, 2], chosen=[3, 4, 5], rejected=[7, 8], row_id="r1"),
    PreferencePair(prompt=[1], chosen=[2, 3, 4, 5], rejected=[6, 6], row_id="r2"),
]
PLAIN: tuple[Score, ...] = ("chosen", "rejected")
PLAIN_CONTEXTS = Contexts()


class FakeModel:
    """Scores a row by arithmetic on its ids, and remembers which rows it was asked for."""

    def __init__(self, shift: float = 0.0) -> None:
        self.asked: list[int] = []
        self.shift = shift

    def __call__(self, rows: Sequence[int], scores: Sequence[Score]) -> Iterator[tuple[int, dict[Score, float]]]:
        for row in rows:
            self.asked.append(row)
            pair = PAIRS[row]
            yield (
                row,
                {s: -float(sum(pair.chosen if s.startswith("chosen") else pair.rejected)) + self.shift for s in scores},
            )


def scores_of(folder: Path, *, contexts: Contexts = PLAIN_CONTEXTS, scores: Sequence[Score] = PLAIN) -> ReferenceScores:
    return ReferenceScores(PAIRS, scores, contexts=contexts, cache=ReferenceCache(IDENTITY, folder))


def test_a_second_run_scores_nothing(tmp_path: Path) -> None:
    first, model = scores_of(tmp_path), FakeModel()
    assert first.missing_rows() == [0, 1, 2]
    assert first.fill([first.missing_rows()], model) == 3
    again = scores_of(tmp_path)
    assert again.missing_rows() == []
    np.testing.assert_array_equal(again.values["chosen"], [-12.0, -12.0, -14.0])


def test_keys_are_the_token_ids_and_where_the_context_ends() -> None:
    assert row_key([1, 2], [3]) != row_key([1], [2, 3])
    assert row_key([1, 2], [3]) == row_key(np.array([1, 2]), np.array([3], dtype=np.int32))


def test_shared_responses_are_one_row_and_the_plain_key_ignores_the_alternative(tmp_path: Path) -> None:
    plain = Contexts()
    assert plain.key(PAIRS[0], "chosen") == plain.key(PAIRS[1], "chosen")
    assert plain.key(PAIRS[0], "chosen_given_rejected") != plain.key(PAIRS[1], "chosen_given_rejected")
    assert plain.key(PAIRS[0], "chosen") == Contexts(separator=(9,), max_alternative_tokens=1).key(PAIRS[0], "chosen")


@pytest.mark.parametrize("changed", [Contexts(separator=(9,)), Contexts(max_alternative_tokens=2)])
def test_a_changed_context_misses_for_conditioned_scores_only(tmp_path: Path, changed: Contexts) -> None:
    first = scores_of(tmp_path, scores=SCORES)
    first.fill([first.missing_rows()], FakeModel())
    assert scores_of(tmp_path, contexts=changed).missing_rows() == []
    assert scores_of(tmp_path, contexts=changed, scores=SCORES).missing_rows() != []


@pytest.mark.parametrize("field", ["weights", "compute_dtype", "layout", "device_kind"])
def test_another_identity_is_another_file_and_the_description_is_not_part_of_it(field: str) -> None:
    values = dict(vars(IDENTITY))
    assert ReferenceIdentity(**(values | {field: "other"})).key() != IDENTITY.key()
    assert ReferenceIdentity(**(values | {"description": "other"})).key() == IDENTITY.key()


def test_verification_accepts_the_model_and_refuses_another_one(tmp_path: Path) -> None:
    reference = scores_of(tmp_path)
    reference.fill([reference.missing_rows()], FakeModel())
    reference.merge([])
    assert reference.verify(FakeModel(), compute_dtype="float32") == 0.0
    with pytest.raises(TrainingError, match="differ from the model's") as raised:
        reference.verify(FakeModel(shift=0.5), compute_dtype="float32")
    assert str(reference.cache.path) in str(raised.value)


def test_what_a_row_was_scored_with_does_not_show_when_a_run_was_killed_in_between(tmp_path: Path) -> None:
    """A model whose last bits depend on the rows that share its batch, as those of real ones do."""

    def score(rows: Sequence[int], scores: Sequence[Score]) -> Iterator[tuple[int, dict[Score, float]]]:
        for row, values in FakeModel()(rows, scores):
            yield row, {name: value - sum(rows) * 1e-9 for name, value in values.items()}

    batches = [[0, 2], [1]]
    whole = scores_of(tmp_path / "whole")
    whole.fill(batches, score)
    whole.merge([])
    scores_of(tmp_path / "killed").fill(batches[:1], score)
    resumed = scores_of(tmp_path / "killed")
    assert resumed.missing_rows() == [1]
    resumed.fill(batches[1:], score)
    resumed.merge([])
    # Another process scores the second batch: r1 shares its chosen response with r0, and must not keep its own bits.
    here, there = scores_of(tmp_path / "two"), scores_of(tmp_path / "two")
    here.fill(batches[:1], score)
    there.fill(batches[1:], score)
    here.merge([(batches[1], {name: there.values[name][batches[1]] for name in PLAIN})])
    for other in (resumed, here, scores_of(tmp_path / "two"), scores_of(tmp_path / "whole")):
        for name in PLAIN:
            np.testing.assert_array_equal(other.values[name], whole.values[name])


def test_a_reference_that_is_not_finite_names_its_row(tmp_path: Path) -> None:
    reference = scores_of(tmp_path)
    with pytest.raises(TrainingError, match="row r0"):
        reference.fill([[0]], FakeModel(shift=float("nan")))
    assert scores_of(tmp_path).missing_rows() == [0, 1, 2]


def _write_many(folder: str, start: int) -> None:
    cache = ReferenceCache(IDENTITY, Path(folder))
    for number in range(start, start + 50):
        cache.put([(row_key([number], [number]), float(number))])


def test_two_writers_fill_one_file(tmp_path: Path) -> None:
    """Each write has a connection of its own, as in two processes: SQLite's file lock is what keeps them apart."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(_write_many, str(tmp_path), start) for start in (0, 25)]:
            done.result(timeout=120)
    values = ReferenceCache(IDENTITY, tmp_path).get([row_key([n], [n]) for n in range(75)])
    np.testing.assert_array_equal(values, np.arange(75.0))
