"""Answers that were dear to get, kept: one JSON line each, so that no call is ever made, or paid, twice."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspo_hub.errors import InspoError


def call_key(**parts: Any) -> str:
    """SHA-256 over everything that an answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class CallCache:
    """A file of answers by key, safe for threads of one process and for a kill at any moment.

    The texts that were judged are not in it, only their hash.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        self._torn = False
        if path.is_file():
            content = path.read_text(encoding="utf-8", errors="replace")
            self._torn = not content.endswith("\n") and bool(content)
            # Not splitlines(): an answer may hold a line separator that JSON does not escape.
            for line in content.split("\n"):
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            self._answers[row.pop("key")] = row
        except (ValueError, KeyError, AttributeError):
            return  # empty, or cut off by a kill: it is asked again

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> dict[str, Any] | None:
        return self._answers.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keeps a successful answer; it is on the disk when this returns."""
        self.put_all({key: answer})

    def put_all(self, answers: Mapping[str, dict[str, Any]]) -> None:
        """Keeps several at once."""
        lines = "".join(json.dumps({"key": key, **each}, ensure_ascii=False) + "\n" for key, each in answers.items())
        with self._lock:
            self._answers.update(answers)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n" + lines if self._torn else lines)  # the line that a kill cut off stays alone
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise InspoError(
                    f"an answer cannot be kept: {error.strerror}",
                    where=str(self.path),
                    fix="free the disk or choose another --output, and repeat the command",
                ) from error
            self._torn = False

    def values(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._answers.values())
