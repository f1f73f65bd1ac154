"""The Space's one set of functions: compare, stop, vote, explain, tally. Page, endpoints and agents call the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from inspo_hub.errors import DataError
from inspo_hub.space.config import OWN, SamplingSection, SpaceConfig
from inspo_hub.space.limiting import RateLimiter, check_conversation, within
from inspo_hub.space.rounds import CHOICES, Choice, Message, Piece, Round, Rounds
from inspo_hub.space.tally import Tally, tally
from inspo_hub.space.votes import VoteStore, pair_row, vote_row

if TYPE_CHECKING:
    from inspo_hub.space.precomputed import Precomputed
    from inspo_hub.space.rewards import Rewards

log = logging.getLogger(__name__)

FRAME_S = 0.05
"""Seconds between two pictures of the answers: more of them cost the browser more than the model."""


class Backend(Protocol):
    """Where fresh answers come from."""

    def stream(self, conversation: Sequence[Message], sampling: SamplingSection) -> Iterator[Mapping[str, Piece]]:
        """Both answers as they grow, by system; the last item has only pieces that ended."""
        ...

    def rewards(self, conversation: Sequence[Message], answers: Mapping[str, Piece]) -> Rewards | None:
        """What each system thinks of both answers; None where the backend cannot say."""
        ...


class Service:
    """One Space. Exactly one of `backend` and `precomputed` is there."""

    def __init__(
        self,
        config: SpaceConfig,
        store: VoteStore,
        *,
        backend: Backend | None = None,
        precomputed: Precomputed | None = None,
        rounds: Rounds | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        assert (backend is None) != (precomputed is None), "answers come from one place"
        self.config, self.store = config, store
        self.backend, self.precomputed = backend, precomputed
        self._rounds = rounds if rounds is not None else Rounds()
        self._limiter = RateLimiter(config.limits.rounds_per_minute)
        self._clock = clock
        self._tallied: tuple[int, Tally] | None = None
        self._categories = {each.text.strip(): each.category for each in config.examples}

    @property
    def is_live(self) -> bool:
        return self.backend is not None

    # --- rounds

    def compare(
        self,
        prompt: str,
        *,
        visitor: str,
        sampling: SamplingSection | None = None,
        continues: str = "",
        row: str = "",
        informed: bool = False,
    ) -> Iterator[Round]:
        """A round as its answers grow: the same object again and again, ended at last. Names are hidden in it.

        Args:
            continues: the round, voted on, whose conversation goes on.
            row: a precomputed comparison; without it and without a prompt, any one.

        Raises:
            DataError: the prompt, the conversation or the pace is beyond the limits, or nobody answered the prompt.
        """
        self._limiter.check(visitor)
        if self.precomputed is not None:
            yield self._shown(self.precomputed, prompt, row, informed)
            return
        assert self.backend is not None
        conversation = (*self._history(continues), {"role": "user", "content": prompt})
        check_conversation(conversation, self.config.limits)
        drawn = within(sampling if sampling is not None else self.config.sampling, self.config.limits)
        new = self._rounds.open(
            self.config.names,
            conversation=conversation,
            answers={name: Piece() for name in self.config.names},
            sampling=drawn,
            category=self._categories.get(prompt.strip(), OWN),
            informed=informed,
        )
        yield from self._written(new, self.backend)

    def _shown(self, precomputed: Precomputed, prompt: str, row: str, informed: bool) -> Round:
        found = precomputed.find(prompt, row)
        return self._rounds.open(
            self.config.names,
            conversation=found.conversation,
            answers=found.answers,
            sampling=self.config.sampling,
            category=self._categories.get(found.prompt.strip(), found.category),
            row=found.row,
            scores=found.scores,
            informed=informed,
        )

    def _history(self, continues: str) -> tuple[Message, ...]:
        if not continues:
            return ()
        before = self._rounds.get(continues)
        if before.vote is None:
            raise DataError(
                "the last answers have no vote yet",
                where="conversation",
                expected="a vote: both systems go on from the answer that was preferred",
                fix="vote first, or start a new conversation",
            )
        return before.continued()

    def _written(self, new: Round, backend: Backend) -> Iterator[Round]:
        """Frames of the answers. Where the visitor stops or goes away, what is written so far is all there is."""
        shown = 0.0
        stream = backend.stream(new.conversation, new.sampling)
        try:
            for pieces in stream:
                first = not any(piece.tokens for piece in new.answers.values())
                new.answers = dict(pieces)
                now = time.monotonic()
                if new.stop.is_set():
                    break
                if now - shown >= FRAME_S or (first and any(piece.tokens for piece in pieces.values())):
                    shown = now
                    yield new
        finally:
            new.answers = {name: _at_rest(piece) for name, piece in new.answers.items()}
            close = getattr(stream, "close", None)
            if close is not None:
                close()
        yield new

    def round(self, id: str) -> Round:
        """The round of a name. Raises DataError where there is none."""
        return self._rounds.get(id)

    def stop(self, id: str) -> None:
        """Ends both answers after the token that is being written."""
        self._rounds.get(id).stop.set()

    # --- votes

    def vote(self, id: str, choice: str) -> Round:
        """The round with its vote, names no longer hidden; a second vote changes nothing.

        Raises:
            DataError: no such round or choice, or the answers are not there yet.
        """
        found = self._rounds.get(id)
        if choice not in CHOICES:
            raise DataError(f"{choice!r} is no vote", where="vote", expected=", ".join(CHOICES))
        with found.voting:
            if found.vote is None:
                self._check_open(found)
                self._record(found, choice)
        return found

    def _check_open(self, found: Round) -> None:
        if not found.ended:
            raise DataError(
                "the answers are still being written", where="vote", expected="two answers", fix="wait, or stop them"
            )
        if not any(piece.usable for piece in found.answers.values()):
            raise DataError("there is no answer to vote on", where="vote", fix="start it again")

    def _record(self, found: Round, choice: Choice) -> None:
        """The row is on the disk before the round counts as voted: where the disk is full, one may try again."""
        found.vote = choice
        now = self._clock()
        try:
            self.store.add(vote_row(found, self.config, now), pair_row(found, self.config, now))
        except OSError as error:
            found.vote = None
            log.error("a vote could not be written: %s", error)
            raise DataError(
                "the vote could not be kept", where="vote", expected="room on the disk", fix="try again later"
            ) from error

    def rewards(self, id: str) -> Rewards | None:
        """What each system thinks of both answers; after the vote. Raises DataError before it."""
        found = self._rounds.get(id)
        if found.vote is None:
            raise DataError("what the systems think is shown after the vote", where="vote", fix="vote first")
        return None if self.backend is None else self.backend.rewards(found.conversation, found.answers)

    def tally(self) -> Tally:
        """All votes so far; computed again when there are more."""
        rows = self.store.rows
        if self._tallied is None or self._tallied[0] != len(rows):
            self._tallied = (len(rows), tally(rows, self.config.names))
        return self._tallied[1]


def _at_rest(piece: Piece) -> Piece:
    return piece if piece.ended else replace(piece, state="stopped")
