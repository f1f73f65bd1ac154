"""Jobs that do not run by themselves: a test, or a function that it gives the server, plays the machine."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

FINAL = ("COMPLETED", "CANCELED", "ERROR", "DELETED")


def now() -> str:
    """Logs are compared with the clock of the client, so jobs live in real time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass
class Job:
    """A job: `spec` is the request as it came, its secrets included; the rest is what happens to it.

    job.start(); job.say("step 1"); job.finish()          # or finish("ERROR", "out of memory")
    """

    namespace: str
    spec: dict[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    stage: str = "SCHEDULING"
    message: str | None = None
    created: str = field(default_factory=now)
    started: str | None = None
    finished: str | None = None
    lines: list[tuple[str, str]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def start(self) -> None:
        self._move("RUNNING", started=now())
        self.say(f"===== Job started at {now()} =====")

    def say(self, line: str) -> None:
        with self._changed:
            self.lines.append((now(), line))
            self._changed.notify_all()

    def finish(self, stage: str = "COMPLETED", message: str | None = None) -> None:
        assert stage in FINAL, stage
        self.message = message
        self._move(stage, finished=now())

    def _move(self, stage: str, **times: str) -> None:
        with self._changed:
            if self.stage not in FINAL:  # what is over stays as it ended
                self.stage = stage
                for name, value in times.items():
                    setattr(self, name, value)
            self._changed.notify_all()

    def wait(self, *stages: str, timeout: float = 30) -> None:
        """Until the job is in one of these stages."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.stage in stages, timeout), f"{self.id} is still {self.stage}"

    def follow(self, tail: int | None, patience: float) -> Iterator[tuple[str, str]]:
        """The lines that are there and those that come, until the job is over or was silent for `patience` seconds."""
        shown = 0 if tail is None else max(0, len(self.lines) - tail)
        deadline = time.monotonic() + patience
        while True:
            with self._changed:
                if len(self.lines) == shown and self.stage not in FINAL:
                    self._changed.wait(patience)
                fresh = self.lines[shown:]
            yield from fresh
            shown += len(fresh)
            if not fresh and (self.stage in FINAL or time.monotonic() > deadline):
                return
            deadline = time.monotonic() + patience if fresh else deadline

    def describe(self) -> dict[str, Any]:
        """What the API tells of it: the secrets' values stay here."""
        shown = {key: value for key, value in self.spec.items() if key not in ("secrets", "timeoutSeconds")}
        return {
            **shown,
            "id": self.id,
            "timeout": self.spec.get("timeoutSeconds", 1800),
            "secrets": dict.fromkeys(self.spec.get("secrets", {}), ""),
            "createdAt": self.created,
            "startedAt": self.started,
            "finishedAt": self.finished,
            "status": {"stage": self.stage, "message": self.message},
            "owner": {"id": self.namespace, "name": self.namespace, "type": "user"},
            "initiator": {"type": "user", "id": self.namespace, "name": self.namespace},
        }
