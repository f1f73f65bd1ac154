"""What was asked of the server, for tests to count and to accuse."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from .http import Request


@dataclass(slots=True)
class LogEntry:
    """One request. `token` is a label ("alice:write"), never a secret; "" without one, "invalid" for an unknown one."""

    origin: str
    method: str
    url: str
    token: str
    headers: dict[str, str] = field(repr=False)
    done: int | None = None  # the status that the work came to, sent or not
    status: int | None = None  # the status that was sent; None: no answer was given
    faults: list[str] = field(default_factory=list)
    client_gone: bool = False
    seconds: float = 0.0


class RequestLog:
    """The requests since the log was cleared, in the order of their arrival."""

    def __init__(self) -> None:
        self._entries: list[LogEntry] = []
        self._lock = threading.Lock()

    def add(self, entry: LogEntry) -> LogEntry:
        with self._lock:
            self._entries.append(entry)
        return entry

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def __iter__(self) -> Iterator[LogEntry]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def find(
        self, method: str = "", url: str = "", *, origin: str = "", token: str | None = None, status: int | None = None
    ) -> list[LogEntry]:
        """Entries whose method is `method` (a regular expression), whose url `url` is found in, and so on."""
        return [
            entry
            for entry in self
            if (not method or re.fullmatch(method, entry.method))
            and re.search(url, entry.url)
            and (not origin or entry.origin == origin)
            and (token is None or entry.token == token)
            and (status is None or entry.status == status)
        ]

    def count(
        self, method: str = "", url: str = "", *, origin: str = "", token: str | None = None, status: int | None = None
    ) -> int:
        return len(self.find(method, url, origin=origin, token=token, status=status))

    @property
    def token_leaks(self) -> list[LogEntry]:
        """Requests that brought a token where it does not belong, a storage's to the other included: there are none."""
        return [
            entry
            for entry in self
            if (entry.origin == "cdn" and entry.token) or (entry.origin == "cas" and entry.token not in ("", "xet"))
        ]


def entry_of(request: Request, token: str) -> LogEntry:
    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    return LogEntry(request.origin, request.method, request.url, token, headers)
