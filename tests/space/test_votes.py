"""Votes as rows: their schema, what trains, what survives, and what they add up to."""

from __future__ import annotations

import errno
import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspo_hub.errors import DataError
from inspo_hub.evaluate import mean_estimate
from inspo_hub.evaluate.length_control import length_controlled_estimate
from inspo_hub.pairs import PairSource
from inspo_hub.pairs.load import load_rows, load_source
from inspo_hub.space import VoteStore
from inspo_hub.space.tally import tally
from inspo_hub.space.votes import dataset_card, pair_row, vote_row
from tests.space.test_rounds import BLUE, Scripted, service_of

NAMES = ("dpo", "inspo")


def voted(tmp_path: Path, choice: str, answers: dict[str, str] | None = None, **facts: Any) -> Any:
    service = service_of(tmp_path, Scripted(answers or BLUE), seed=facts.pop("seed", 0))
    last = list(service.compare(facts.pop("prompt", "Why?"), visitor="v", **facts))[-1]
    return service, service.vote(last.id, choice)


def test_a_decided_vote_is_a_preference_pair(tmp_path: Path) -> None:
    service, round = voted(tmp_path, "b")
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    row = pair_row(round, service.config, now)
    winner, loser = round.sides["b"], round.sides["a"]
    assert row is not None
    assert row["prompt"] == [{"role": "user", "content": "Why?"}]
    assert row["chosen"] == [{"role": "assistant", "content": BLUE[winner]}]
    assert row["rejected"] == [{"role": "assistant", "content": BLUE[loser]}]
    assert row["chosen_model"] == {"system": winner, "weights": service.config.system(winner).identity}
    assert row["rejected_model"]["weights"] == service.config.system(loser).identity
    assert row["time"] == "2026-01-02T03:04:05Z"
    assert row["sampling"] == service.config.sampling.model_dump()
    whole = vote_row(round, service.config, now)
    assert {each["side"]: each["system"] for each in whole["answers"]} == dict(round.sides)
    assert not {"visitor", "address", "session", "ip"} & {*row, *whole, *whole["answers"][0]}


@pytest.mark.parametrize("choice", ["tie", "both_bad"])
def test_an_undecided_vote_trains_nothing(tmp_path: Path, choice: str) -> None:
    service, round = voted(tmp_path, choice)
    assert pair_row(round, service.config, datetime.now(UTC)) is None
    assert [row["winner"] for row in service.store.rows] == [choice]


def test_equal_answers_train_nothing(tmp_path: Path) -> None:
    service, round = voted(tmp_path, "a", {"dpo": "The same.", "inspo": "The same."})
    assert pair_row(round, service.config, datetime.now(UTC)) is None


def test_the_votes_folder_is_a_dataset_that_training_reads(tmp_path: Path) -> None:
    """Two Spaces with other systems, ties between: one dataset, whose default configuration are the pairs."""
    for seed, choice in enumerate(["a", "b", "tie", "a", "both_bad", "b"]):
        service, _ = voted(tmp_path, choice, seed=seed, prompt=f"Why {seed}?")
    folder = tmp_path / "votes"
    (folder / "README.md").write_text(dataset_card(service.config))
    source = PairSource(id=str(folder), local_path=str(folder), config="pairs", split="train")
    rows = load_source(source, "test")
    assert len(rows) == 4
    assert {"prompt", "chosen", "rejected"} == set(rows.column_names)
    everything = load_rows(PairSource(id=str(folder), local_path=str(folder), config="votes", split="train"))
    assert len(everything) == 6


def test_a_vote_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(tmp_path, Scripted(BLUE))
    last = list(service.compare("Why?", visitor="v"))[-1]

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DataError, match="could not be kept"):
            service.vote(last.id, "a")
    assert service.store.rows == []
    assert service.vote(last.id, "b").vote == "b", "there is room again"
    assert len(service.store.rows) == 1


def test_half_a_line_of_a_dead_machine_goes(tmp_path: Path) -> None:
    service, _ = voted(tmp_path, "a")
    (file,) = (tmp_path / "votes" / "votes").iterdir()
    whole = file.read_bytes()
    file.write_bytes(
        whole + b'{"round": "torn',
    )
    store = VoteStore(tmp_path / "votes")
    assert store.rows == service.store.rows
    assert file.read_bytes() == whole


def test_votes_of_other_processes_count_once(tmp_path: Path) -> None:
    service, _ = voted(tmp_path, "a")
    store = VoteStore(tmp_path / "elsewhere")
    store.learn(service.store.rows)
    store.learn(service.store.rows)
    assert store.rows == service.store.rows


# --- tally


def made(
    winner: str, *, prompt: str = "p", category: str = "c", texts: tuple[str, str] = ("x", "y"), **more: Any
) -> Any:
    answers = [{"system": name, "text": text, "state": "finished"} for name, text in zip(NAMES, texts, strict=True)]
    row = {"winner": winner, "prompt": prompt, "category": category, "informed": False, "answers": answers}
    return {**row, **more}


def test_a_tally_is_a_mean_with_a_bootstrap_over_prompts() -> None:
    rows = [
        made(winner, prompt=str(number % 4)) for number, winner in enumerate(["dpo", "inspo", "tie", "both_bad", "dpo"])
    ]
    found = tally(rows, NAMES)
    assert found.overall.win_rate == mean_estimate([1, 0, 0.5, 0.5, 1], ["0", "1", "2", "3", "0"])
    assert found.overall.wins == {"dpo": 2, "inspo": 1, "tie": 1, "both_bad": 1}
    assert found.overall.length_controlled is None, "five votes say nothing about length"


def test_informed_votes_and_other_systems_do_not_count() -> None:
    others = made("dpo")
    others["answers"] = [{**each, "system": "x" + each["system"]} for each in others["answers"]]
    failed = made("dpo")
    failed["answers"][0]["state"] = "failed"
    found = tally([made("dpo"), made("inspo", informed=True), others, failed], NAMES)
    assert (found.overall.votes, found.informed, found.failed) == (1, 1, 1)
    assert tally([], NAMES).overall.win_rate is None
    assert tally([], NAMES).to_dict()["overall"]["votes"] == 0


def test_categories_stand_apart() -> None:
    rows = [made("dpo", category="science"), made("inspo", category="own prompt"), made("dpo", category="science")]
    found = tally(rows, NAMES)
    assert {each.category: each.votes for each in found.categories} == {"own prompt": 1, "science": 2}
    assert next(each for each in found.categories if each.category == "science").win_rate.value == 1  # type: ignore[union-attr]


def test_length_is_taken_out_where_it_decides() -> None:
    """Visitors who always prefer the longer answer: the adjusted rate does not tell the systems apart."""
    rng = random.Random(0)
    rows, lengths = [], []
    for number in range(150):
        first, second = rng.randint(20, 120), rng.randint(10, 90)
        longer = "dpo" if first > second else "inspo"
        rows.append(made(longer, prompt=str(number), texts=("x" * first, "y" * second)))
        lengths.append((first, second))
    standing = tally(rows, NAMES).overall
    assert standing.win_rate is not None
    assert standing.length_controlled is not None
    values = [float(row["winner"] == "dpo") for row in rows]
    ours, theirs = np.array(lengths).T
    clusters = [json.dumps(str(number)) for number in range(150)]
    assert standing.length_controlled == length_controlled_estimate(values, ours, theirs, clusters, resamples=200)
    assert standing.win_rate.excludes(0.5)
    assert not standing.length_controlled.excludes(0.5)
