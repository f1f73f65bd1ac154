"""One round: a prompt, two answers whose names are hidden, and at most one vote. Rounds never leave the server."""

from __future__ import annotations

import random
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inspo_hub.errors import DataError
from inspo_hub.space.config import SamplingSection

Message = Mapping[str, str]
Side = Literal["a", "b"]
Choice = Literal["a", "b", "tie", "both_bad"]
State = Literal["waiting", "writing", "finished", "cut", "stopped", "failed"]
SIDES: tuple[Side, Side] = ("a", "b")
CHOICES: tuple[Choice, ...] = ("a", "b", "tie", "both_bad")
ENDED = ("finished", "cut", "stopped", "failed")

KEPT_ROUNDS = 5000
"""Rounds in memory: the oldest go first. A round that has gone can no longer be voted on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One answer as far as it is written."""

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    """Time this side's model computed; 0 where nobody measured it."""
    state: State = "waiting"
    problem: str = ""
    """What a visitor is told where the side failed."""
    token_ids: tuple[int, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def usable(self) -> bool:
        """Whether there is an answer to judge, and to train on."""
        return self.ended and self.state != "failed" and bool(self.text.strip())


@dataclass(slots=True)
class Round:
    """A comparison. `answers` and `scores` go by system; `sides` says which system is shown where."""

    id: str
    conversation: tuple[Message, ...]
    """What both systems answer: shared history, last a user turn."""
    sides: Mapping[Side, str]
    answers: Mapping[str, Piece]
    sampling: SamplingSection
    category: str
    row: str = ""
    """The precomputed comparison that is shown; empty for fresh answers."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The judge's, of precomputed answers."""
    vote: Choice | None = None
    informed: bool = False
    """Whether the visitor had seen results before voting: such votes are kept and not counted."""
    stop: threading.Event = field(default_factory=threading.Event)
    voting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def prompt(self) -> str:
        return self.conversation[-1]["content"]

    @property
    def ended(self) -> bool:
        return all(piece.ended for piece in self.answers.values())

    def piece(self, side: Side) -> Piece:
        return self.answers[self.sides[side]]

    @property
    def winner(self) -> str:
        """The system that was voted for, `tie` or `both_bad`; asked for after the vote."""
        assert self.vote is not None, "nobody has voted yet"
        return self.sides[self.vote] if self.vote in SIDES else self.vote

    def continued(self) -> tuple[Message, ...]:
        """The conversation with the preferred answer, from which both systems go on; after a tie with that of A."""
        side: Side = "b" if self.vote == "b" else "a"
        if not self.piece(side).usable:
            side = "b" if side == "a" else "a"
        return (*self.conversation, {"role": "assistant", "content": self.piece(side).text})


def shuffled_sides(names: Sequence[str], rng: random.Random | random.SystemRandom) -> dict[Side, str]:
    """Which of two systems is shown on which side; a fair coin that no visitor can know."""
    first, second = names
    return {"a": first, "b": second} if rng.random() < 0.5 else {"a": second, "b": first}


class Rounds:
    """The rounds of all visitors, by names that cannot be guessed."""

    def __init__(self, rng: random.Random | None = None, kept: int = KEPT_ROUNDS) -> None:
        self._rng = rng if rng is not None else random.SystemRandom()
        self._kept, self._rounds, self._lock = kept, OrderedDict[str, Round](), threading.Lock()

    def open(self, names: Sequence[str], **facts: Any) -> Round:
        """A new round with its sides shuffled; `facts` are the fields of `Round`."""
        with self._lock:
            sides = shuffled_sides(names, self._rng)
            new = Round(id=secrets.token_urlsafe(12), sides=sides, **facts)
            self._rounds[new.id] = new
            while len(self._rounds) > self._kept:
                self._rounds.popitem(last=False)
        return new

    def get(self, id: str) -> Round:
        """The round of a name.

        Raises:
            DataError: there is none (any more).
        """
        found = self._rounds.get(id)
        if found is None:
            raise DataError(
                "this comparison is no longer open", where="round", expected="one of this session", fix="start it again"
            )
        return found
