"""One way of calling the Hub: our own client, bounded in time, retried where that helps, errors said once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.faults import Fault, classify, client_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 600.0
"""The client's own default is to wait for ever, which would hang a finished run. A commit of thousands of files can
take minutes on the Hub's side, so this is generous."""
AWAY_S = 20.0
"""A Hub that did not answer is not waited for again within this time: a plan asks it a dozen things."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on trying: attempts, seconds before the second one and their ceiling, the longest wait obeyed."""

    attempts: int = 4
    base_s: float = 1.0
    ceiling_s: float = 30.0
    longest_wait_s: float = 120.0
    jitter: float = 0.0
    """Up to this share is added to each wait at random, so that many callers do not come back together."""

    def wait_s(self, attempt: int, fault: Fault) -> float | None:
        """Seconds until attempt + 1 (attempts count from 1); None: give up. What the Hub asks for is never undercut."""
        if not fault.transient or attempt >= self.attempts:
            return None
        backoff = min(self.ceiling_s, self.base_s * 2 ** (attempt - 1)) * (1 + self.jitter * random.random())
        if fault.wait_s is None:
            return backoff
        # One second more than asked: the header is in whole seconds.
        return max(backoff, fault.wait_s + 1) if fault.wait_s <= self.longest_wait_s else None


DEFAULT_PATIENCE = Patience()
ONCE = Patience(attempts=1)
"""For the calls that the client itself repeats (listings, downloads): patience would be multiplied with its own."""


def api() -> HfApi:
    """The client, with an end to every wait; it reads the token at each call, so that a renewed one works."""
    from huggingface_hub import HfApi, get_session

    from inspo_hub import __version__

    session = get_session()
    if session.timeout.read is None:
        session.timeout = (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S, ANSWER_TIMEOUT_S, None)
    return HfApi(library_name="inspo_hub", library_version=__version__)


def has_token() -> bool:
    """Whether a token would be sent: HF_TOKEN, or what `hf auth login` left."""
    from huggingface_hub import get_token

    return get_token() is not None


class HubFailure(Exception):
    """A call that failed for good, inside this package; the rooms above turn it into an InspoError with advice."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


@dataclass
class Line:
    """Whether a server was out of reach a moment ago: then patience was spent already, and one attempt must do."""

    away_until: float = float("-inf")

    def note(self, fault: Fault | None) -> None:
        away = fault is not None and fault.kind == "away"
        self.away_until = time.monotonic() + AWAY_S if away else float("-inf")

    @property
    def is_dead(self) -> bool:
        return time.monotonic() < self.away_until


_hub = Line()


def call(action: Callable[[], Result], *, patience: Patience = DEFAULT_PATIENCE, line: Line = _hub) -> Result:
    """The action's result; transient failures are tried again. Raises HubFailure, whose text carries no token.

    `line` is that of the Hub, or of another server that the Hub's client talks to.
    """
    attempt, was_dead = 0, line.is_dead
    while True:
        attempt += 1
        try:
            result = action()
        except HubFailure as failure:
            fault = failure.fault
        except client_errors() as error:
            fault = classify(error)
        else:
            line.note(None)
            return result
        wait = patience.wait_s(attempt, fault)
        if fault.kind == "away" and was_dead:
            wait = None
        if wait is None:
            line.note(fault)
            # `from None`: the client's exception holds the request, and with it the token.
            raise HubFailure(fault) from None
        log.info("the server did not answer as hoped (%s); trying again in %.0f s", fault.message, wait)
        time.sleep(wait)


def repo_url(repo_id: str, kind: str = "model") -> str:
    """The page of a repository, where access is asked for."""
    from huggingface_hub import constants

    prefix = "" if kind == "model" else f"{kind}s/"
    return f"{constants.ENDPOINT.rstrip('/')}/{prefix}{repo_id}"


def resolution_error(fault: Fault, *, kind: str, repo_id: str, doing: str, sha: str | None = None) -> ResolutionError:
    """A Hub fault as one message with the advice that belongs to its kind."""
    advice = {
        "gated": f"open {repo_url(repo_id, kind)}, accept the conditions, and log in with `hf auth login`",
        "denied": "check the token with `hf auth whoami`; it must be allowed to read this repository",
        "missing": f"check the name; a private or gated {kind} needs a token (`hf auth login`)",
        "away": "check the connection and HF_ENDPOINT, then run the same command again",
        "busy": "the Hub is busy or limits requests: run the same command again later",
        "local": "free disk space or fix the permissions of the cache (HF_HOME)",
    }
    return ResolutionError(
        f"{doing} failed: {fault.message}",
        where=f"{kind} {repo_id}@{sha}" if sha else f"{kind} {repo_id}",
        expected=f"a {kind} repository that can be read",
        fix=advice.get(fault.kind, "see the message of the Hub above"),
    )
