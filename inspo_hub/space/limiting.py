"""What one visitor may ask for: lengths, turns, and how often. Who a visitor is is forgotten with the process."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence

from inspo_hub.errors import DataError
from inspo_hub.space.config import Limits, SamplingSection

_SALT = secrets.token_bytes(16)
WINDOW_S = 60.0
KNOWN_VISITORS = 10_000


class TooOften(DataError):
    """A visitor who asks faster than the Space allows."""


def visitor_key(headers: Mapping[str, str], host: str | None) -> str:
    """A name for a visitor's address that says nothing without this process's salt.

    On a Space the proxy appends the address that it sees; what stands before it anybody could have written.
    """
    address = host or ""
    if os.environ.get("SPACE_ID"):
        address = headers.get("x-forwarded-for", address).split(",")[-1].strip() or address
    return hashlib.blake2b(address.encode(), key=_SALT, digest_size=12).hexdigest()


class RateLimiter:
    """At most `per_minute` events of a visitor in any 60 s."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock, self._lock = per_minute, clock, threading.Lock()
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, visitor: str) -> None:
        """Counts one event.

        Raises:
            TooOften: it would be one too many; it is not counted.
        """
        now = self._clock()
        with self._lock:
            times = self._seen.setdefault(visitor, deque())
            self._seen.move_to_end(visitor)
            while len(self._seen) > KNOWN_VISITORS:
                self._seen.popitem(last=False)
            while times and now - times[0] >= WINDOW_S:
                times.popleft()
            if len(times) >= self._per_minute:
                wait = int(WINDOW_S - (now - times[0])) + 1
                raise TooOften(
                    f"more than {self._per_minute} comparisons in a minute",
                    where="visitor",
                    expected=f"at most {self._per_minute} a minute",
                    fix=f"wait {wait} seconds",
                )
            times.append(now)


def check_conversation(conversation: Sequence[Mapping[str, str]], limits: Limits) -> None:
    """Refuses an empty prompt, one that is too long, and a conversation with too many turns.

    Raises:
        DataError: with what a visitor can do about it.
    """
    prompt = conversation[-1]["content"]
    if not prompt.strip():
        raise DataError(
            "the prompt is empty", where="prompt", expected="a question", fix="write one, or take an example"
        )
    if len(prompt) > limits.prompt_characters:
        raise DataError(
            f"the prompt has {len(prompt)} characters",
            where="prompt",
            expected=f"at most {limits.prompt_characters}",
            fix="make it shorter",
        )
    turns = sum(message["role"] == "user" for message in conversation)
    if turns > limits.turns:
        raise DataError(
            f"this would be turn {turns}",
            where="conversation",
            expected=f"at most {limits.turns} turns",
            fix="start a new conversation",
        )


def within(sampling: SamplingSection, limits: Limits) -> SamplingSection:
    """The sampling, its length cut to what the Space allows."""
    return sampling.model_copy(update={"max_new_tokens": min(sampling.max_new_tokens, limits.new_tokens)})
