"""Rounds without a page: blind sides, limits, one vote, and what a conversation goes on from."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspo_hub.errors import DataError, RecipeError
from inspo_hub.space import Service, SpaceConfig, VoteStore, read_config, word_diff, write_config
from inspo_hub.space.config import Limits, SamplingSection, parse_config
from inspo_hub.space.limiting import RateLimiter, TooOften, check_conversation, visitor_key, within
from inspo_hub.space.precomputed import Precomputed
from inspo_hub.space.rounds import Message, Piece, Rounds, shuffled_sides

CONFIG: dict[str, Any] = {
    "systems": [
        {"name": "dpo", "model": {"path": "dpo"}, "identity": "alice/dpo@" + "1" * 40, "beta": 0.1},
        {"name": "inspo", "model": {"path": "inspo"}, "identity": "alice/inspo@" + "2" * 40, "beta": 0.1},
    ],
    "backend": "models",
    "examples": [{"text": "Why is the sky blue?", "category": "science"}],
}


class Scripted:
    """A backend that says what it was told to say, a word at a time; a side may fail after some words."""

    def __init__(self, answers: Mapping[str, str], fails: Mapping[str, int] | None = None) -> None:
        self.answers, self.fails = answers, fails or {}
        self.asked: list[tuple[tuple[Message, ...], SamplingSection]] = []
        self.closed = False

    def stream(self, conversation: Sequence[Message], sampling: SamplingSection) -> Iterator[dict[str, Piece]]:
        self.asked.append((tuple(conversation), sampling))
        words = {name: text.split(" ") for name, text in self.answers.items()}
        try:
            for count in range(max(map(len, words.values())) + 1):
                yield {name: self._piece(name, words[name], count) for name in words}
        finally:
            self.closed = True

    def _piece(self, name: str, words: Sequence[str], count: int) -> Piece:
        if name in self.fails and count >= self.fails[name]:
            said = " ".join(words[: self.fails[name]])
            return Piece(said, self.fails[name], 0.1, "failed", "The model failed on this prompt.")
        state = "waiting" if count == 0 else "finished" if count >= len(words) else "writing"
        return Piece(" ".join(words[:count]), min(count, len(words)), 0.1 * count, state)  # type: ignore[arg-type]

    def rewards(self, conversation: Sequence[Message], answers: Mapping[str, Piece]) -> None:
        return None


def service_of(tmp_path: Path, backend: Scripted, seed: int = 0, **changes: Any) -> Service:
    config = parse_config({**CONFIG, **changes}, where="test")
    return Service(config, VoteStore(tmp_path / "votes"), backend=backend, rounds=Rounds(random.Random(seed)))


BLUE = {"dpo": "It scatters light.", "inspo": "Short waves scatter more than long ones."}


# --- sides


def test_sides_are_a_fair_coin() -> None:
    rng = random.Random(0)
    first = sum(shuffled_sides(("dpo", "inspo"), rng)["a"] == "dpo" for _ in range(4000))
    assert 1870 < first < 2130, "four standard errors"


def test_a_stream_shows_both_sides_as_they_grow(tmp_path: Path) -> None:
    backend = Scripted(BLUE)
    frames = list(service_of(tmp_path, backend).compare("Why is the sky blue?", visitor="v"))
    assert frames[-1].ended
    assert {name: piece.text for name, piece in frames[-1].answers.items()} == BLUE
    assert frames[-1].category == "science"
    assert set(frames[-1].sides.values()) == {"dpo", "inspo"}
    assert backend.closed


def test_stop_ends_both_answers_and_they_can_be_voted_on(tmp_path: Path) -> None:
    backend = Scripted({"dpo": "a " * 500, "inspo": "b " * 500})
    service = service_of(tmp_path, backend)
    frames = service.compare("Count.", visitor="v")
    current = next(frames)
    service.stop(current.id)
    last = list(frames)[-1]
    assert {piece.state for piece in last.answers.values()} == {"stopped"}
    assert backend.closed
    assert {piece.text for piece in last.answers.values()} == {"a", "b"}, "the word that was being written is the last"
    assert service.vote(last.id, "a").vote == "a"


def test_two_answers_without_a_word_cannot_be_voted_on(tmp_path: Path) -> None:
    service = service_of(tmp_path, Scripted(BLUE, fails={"dpo": 0, "inspo": 0}))
    last = list(service.compare("Why?", visitor="v"))[-1]
    with pytest.raises(DataError, match="no answer to vote on"):
        service.vote(last.id, "tie")


def test_a_visitor_who_leaves_ends_the_answers(tmp_path: Path) -> None:
    backend = Scripted({"dpo": "a " * 500, "inspo": "b " * 500})
    service = service_of(tmp_path, backend)
    frames = service.compare("Count.", visitor="v")
    current = next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert backend.closed
    assert current.ended


def test_one_side_that_fails_spoils_neither_the_other_nor_the_vote(tmp_path: Path) -> None:
    service = service_of(tmp_path, Scripted(BLUE, fails={"dpo": 1}))
    last = list(service.compare("Why?", visitor="v"))[-1]
    assert last.answers["dpo"].state == "failed"
    assert last.answers["dpo"].problem == "The model failed on this prompt."
    assert last.answers["inspo"].text == BLUE["inspo"]
    side = "a" if last.sides["a"] == "inspo" else "b"
    assert service.vote(last.id, side).winner == "inspo"
    assert [row["winner"] for row in service.store.rows] == ["inspo"]
    assert not list((tmp_path / "votes" / "pairs").glob("*")), "half an answer is nobody's training data"
    assert service.tally().failed == 1
    assert service.tally().overall.votes == 0


# --- votes


def test_ten_votes_at_once_make_one_row(tmp_path: Path) -> None:
    service = service_of(tmp_path, Scripted(BLUE))
    last = list(service.compare("Why?", visitor="v"))[-1]
    together = threading.Barrier(10)

    def click(choice: str) -> None:
        together.wait()
        service.vote(last.id, choice)

    threads = [threading.Thread(target=click, args=("ab"[number % 2],)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = service.store.rows
    assert row["winner"] == last.winner
    (file,) = (tmp_path / "votes" / "votes").iterdir()
    assert len(file.read_text().splitlines()) == 1


def test_no_vote_before_the_answers_and_no_opinion_before_the_vote(tmp_path: Path) -> None:
    service = service_of(tmp_path, Scripted(BLUE))
    frames = service.compare("Why?", visitor="v")
    current = next(frames)
    with pytest.raises(DataError, match="still being written"):
        service.vote(current.id, "a")
    list(frames)
    with pytest.raises(DataError, match="after the vote"):
        service.rewards(current.id)
    with pytest.raises(DataError, match="'c' is no vote"):
        service.vote(current.id, "c")
    with pytest.raises(DataError, match="no longer open"):
        service.vote("guessed", "a")


def test_both_systems_go_on_from_the_preferred_answer(tmp_path: Path) -> None:
    backend = Scripted(BLUE)
    service = service_of(tmp_path, backend)
    first = list(service.compare("Why?", visitor="v"))[-1]
    with pytest.raises(DataError, match="no vote yet"):
        list(service.compare("And red?", visitor="v", continues=first.id))
    service.vote(first.id, "b")
    second = list(service.compare("And red?", visitor="v", continues=first.id))[-1]
    assert [message["content"] for message in second.conversation] == ["Why?", first.piece("b").text, "And red?"]
    assert backend.asked[-1][0] == second.conversation
    assert list(service_of(tmp_path, backend).store.rows) == service.store.rows, "votes outlive the process"


@pytest.mark.parametrize(("choice", "kept"), [("a", "a"), ("b", "b"), ("tie", "a"), ("both_bad", "a")])
def test_what_a_conversation_keeps(tmp_path: Path, choice: str, kept: Any) -> None:
    service = service_of(tmp_path, Scripted(BLUE))
    last = list(service.compare("Why?", visitor="v"))[-1]
    service.vote(last.id, choice)
    assert last.continued()[-1]["content"] == last.piece(kept).text


# --- limits


def test_limits_of_a_conversation() -> None:
    limits = Limits(prompt_characters=10, turns=2, new_tokens=50)
    check_conversation([{"role": "user", "content": "x" * 10}], limits)
    for content, told in (("  \n", "empty"), ("x" * 11, "11 characters")):
        with pytest.raises(DataError, match=told):
            check_conversation([{"role": "user", "content": content}], limits)
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant", "user")]
    with pytest.raises(DataError, match="turn 3"):
        check_conversation(turns, limits)
    assert within(SamplingSection(max_new_tokens=500), limits).max_new_tokens == 50


def test_the_pace_of_one_visitor() -> None:
    now = [0.0]
    limiter = RateLimiter(2, clock=lambda: now[0])
    limiter.check("v")
    now[0] = 30
    limiter.check("v")
    limiter.check("somebody else")
    with pytest.raises(TooOften, match="wait 31 seconds"):
        limiter.check("v")
    now[0] = 60
    limiter.check("v")
    with pytest.raises(TooOften):
        limiter.check("v")


def test_a_visitor_is_a_name_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visitor_key({}, "10.0.0.1") == visitor_key({}, "10.0.0.1") != visitor_key({}, "10.0.0.2")
    assert "10.0.0.1" not in visitor_key({}, "10.0.0.1")
    forged = {"x-forwarded-for": "6.6.6.6, 10.0.0.1"}
    assert visitor_key(forged, "10.0.0.1") == visitor_key({}, "10.0.0.1"), "only a Space has a proxy before it"
    monkeypatch.setenv("SPACE_ID", "alice/compare")
    assert visitor_key(forged, "10.1.1.1") == visitor_key({}, "10.0.0.1"), "what the proxy saw comes last"


# --- differences


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_a_difference_loses_nothing(first: str, second: str) -> None:
    left, right = word_diff(first, second)
    assert "".join(text for text, _ in left) == first
    assert "".join(text for text, _ in right) == second
    if first == second:
        assert all(same for _, same in (*left, *right))


def test_a_difference_marks_words() -> None:
    left, right = word_diff("It lives in the sea.", "It lives in the deep forest.")
    assert left == [("It lives in the ", True), ("sea", False), (".", True)]
    assert right == [("It lives in the ", True), ("deep forest", False), (".", True)]


# --- precomputed answers


def test_precomputed_answers_are_found_by_row_prompt_or_chance(shown: SpaceConfig) -> None:
    found = Precomputed(Path(str(shown.generations)), shown.names, random.Random(0))
    some = found.comparisons[3]
    assert found.find(row=some.row) is some
    assert found.find(prompt=f" {some.prompt} ").prompt == some.prompt
    assert len({found.find().row for _ in range(80)}) > 5
    assert all(found.find().differs for _ in range(40)), "two equal answers ask for no vote"
    assert set(some.scores) == set(shown.names)
    with pytest.raises(DataError, match="nobody has answered"):
        found.find(prompt="What is love?")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no rows"),
        ("{", "JSONDecodeError"),
        ('{"row_id": "1"}', "KeyError: 'responses'"),
        (json.dumps({"responses": {"base": "x"}}), "no answer of 'dpo', 'inspo'"),
        (None, "cannot be read"),
    ],
)
def test_answers_that_cannot_be_read(tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "generations.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=told):
        Precomputed(file, ("dpo", "inspo"))


# --- configuration


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path, live: SpaceConfig) -> None:
    write_config(tmp_path / "space.json", live)
    assert read_config(tmp_path / "space.json") == live


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"titel": "x"}, "titel: Extra inputs"),
        ({"systems": [CONFIG["systems"][0]] * 2}, "both systems are called 'dpo'"),
        ({"backend": "precomputed"}, "needs generations"),
        ({"backend": "endpoint"}, "needs the endpoint of 'dpo'"),
        ({"base": {"repo": "alice/base", "revision": "main"}}, "base.HubSource.revision: String should match"),
        ({"votes": {"repo": "nobody"}}, "votes.repo"),
    ],
)
def test_a_configuration_that_is_wrong(change: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told) as error:
        parse_config({**CONFIG, **change}, where="space.json")
    assert error.value.exit_code == 2


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="inspo-hub space preview"):
        read_config(tmp_path / "space.json")
