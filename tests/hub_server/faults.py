"""What goes wrong, by rule: which requests, how many of them, and what happens to each.

    server.faults.add("POST", "/commit/", Answer(503), times=2)
    server.faults.add("POST", "/commit/", Drop("after"))              # done, but the answer is lost
    server.faults.add("GET", "", Cut(after=1000, reset=True), origin="cdn")
    server.faults.add("GET", "/resolve/", Do(lambda: server.commit("user/model", {"a": b"new"})))

`method` is matched whole and `url` is searched in path and query, both as regular expressions. Rules are asked in the
order in which they were added; a request is struck by at most one action of a kind, and by none after one that ends it,
so that two answers are given to two requests. A rule counts in `hits` what it did.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from .http import DropConnection, Request, Response


class Action:
    """Something that happens to a request; each hook is one moment of its life."""

    ends: ClassVar[bool] = False  # the request gets no answer but this one's, if any

    def before_body(self, request: Request) -> None:
        """When the headers are there and the body is not."""

    def before(self, request: Request) -> Response | None:
        """When the body is there and nothing was done: an answer given here is given instead."""
        return None

    def after(self, request: Request, response: Response) -> Response:
        """When it was done and the answer was not sent."""
        return response


@dataclass(frozen=True)
class Answer(Action):
    """This status instead of doing what was asked."""

    ends: ClassVar[bool] = True
    status: int
    message: str = "a fault of the test"
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def before(self, request: Request) -> Response:
        headers = {
            "X-Error-Message": self.message,
            **({"X-Error-Code": self.code} if self.code else {}),
            **self.headers,
        }
        return Response.json({"error": self.message}, self.status, headers)


@dataclass(frozen=True)
class RateLimited(Action):
    """429: by `RateLimit`, by `Retry-After`, or (commits per hour) with nothing that says how long."""

    ends: ClassVar[bool] = True
    seconds: int = 1
    by: Literal["ratelimit", "retry-after", "commits"] = "ratelimit"

    def before(self, request: Request) -> Response:
        message, headers = "Too Many Requests", {"Retry-After": str(self.seconds)}
        if self.by == "ratelimit":
            headers = {
                "RateLimit": f'"api";r=0;t={self.seconds}',
                "RateLimit-Policy": '"fixed window";"api";q=1000;w=300',
            }
        elif self.by == "commits":
            message = "You have exceeded the rate limit for repository commits (128 per hour)."
            headers = {
                "RateLimit": '"api";r=949;t=237',
                "RateLimit-Policy": '"fixed window";"api";q=1000;w=300',
            }
        return Response.json({"error": message}, 429, {"X-Error-Message": message, **headers})


@dataclass(frozen=True)
class Drop(Action):
    """The connection ends: before the body is read, before anything is done, or after all was done."""

    ends: ClassVar[bool] = True
    when: Literal["before_body", "before", "after"] = "before"
    reset: bool = False

    def before_body(self, request: Request) -> None:
        if self.when == "before_body":
            raise DropConnection(reset=self.reset)

    def before(self, request: Request) -> None:
        if self.when == "before":
            raise DropConnection(reset=self.reset)

    def after(self, request: Request, response: Response) -> Response:
        if self.when == "after":
            raise DropConnection(reset=self.reset)
        return response


@dataclass(frozen=True)
class Cut(Action):
    """The body ends after so many bytes, by a clean close or a reset."""

    after_bytes: int
    reset: bool = False

    def after(self, request: Request, response: Response) -> Response:
        return replace(response, cut_after=self.after_bytes, reset=self.reset)


@dataclass(frozen=True)
class Corrupt(Action):
    """One byte of the body is another one; the length stays."""

    at: int = 0

    def after(self, request: Request, response: Response) -> Response:
        assert response.body, f"nothing to corrupt in the answer to {request.method} {request.url}"
        body = bytearray(response.body)
        body[self.at % len(body)] ^= 0xFF
        return replace(response, body=bytes(body))


@dataclass(frozen=True)
class Slow(Action):
    """A wait before the answer, and a speed for its body."""

    seconds: float = 0.0
    bytes_per_second: float | None = None

    def before(self, request: Request) -> None:
        time.sleep(self.seconds)

    def after(self, request: Request, response: Response) -> Response:
        return replace(response, bytes_per_second=self.bytes_per_second)


@dataclass(frozen=True)
class Do(Action):
    """Calls back, for what only the test knows: moving a branch, setting an event, killing a process."""

    function: Callable[[], object]
    when: Literal["before_body", "before", "after"] = "before"

    def before_body(self, request: Request) -> None:
        if self.when == "before_body":
            self.function()

    def before(self, request: Request) -> None:
        if self.when == "before":
            self.function()

    def after(self, request: Request, response: Response) -> Response:
        if self.when == "after":
            self.function()
        return response


@dataclass
class Rule:
    """Which requests an action strikes: after the first `skip`, `times` of them (None: all)."""

    method: str
    url: str
    action: Action
    times: int | None = 1
    skip: int = 0
    origin: str = ""
    hits: int = 0

    def takes(self, request: Request) -> bool:
        return bool(
            re.fullmatch(self.method or ".*", request.method)
            and re.search(self.url, request.url)
            and (not self.origin or self.origin == request.origin)
        )


class Faults:
    """The rules of the moment."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(
        self, method: str, url: str, action: Action, *, times: int | None = 1, skip: int = 0, origin: str = ""
    ) -> Rule:
        rule = Rule(method, url, action, times, skip, origin)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def strike(self, request: Request) -> list[Action]:
        """The actions for this request; each is counted against its rule."""
        actions: list[Action] = []
        with self._lock:
            for rule in self._rules:
                if any(action.ends or type(action) is type(rule.action) for action in actions):
                    continue
                if not rule.takes(request):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                elif rule.times is None or rule.hits < rule.times:
                    rule.hits += 1
                    actions.append(rule.action)
        return actions
