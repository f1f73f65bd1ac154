"""Prompts to answer: rows of a jsonl file, or rows that somebody else read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub.errors import DataError


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: the messages that a model answers, and its row for reports."""

    messages: tuple[Mapping[str, str], ...]
    row_id: str

    @property
    def text(self) -> str:
        """What a judge is shown: the user's words where there is one turn, else every turn as `role: words`."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in self.messages)


def read_prompts(path: Path, *, column: str = "prompt", limit: int | None = None) -> list[Prompt]:
    """Prompts of a jsonl file, one JSON object per line, in file order."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the prompts cannot be read: {error}",
            where="evaluate.prompts.id",
            expected="a jsonl file with one prompt per line",
            fix="correct the path; it is relative to the recipe",
        ) from error
    rows: list[Mapping[str, Any]] = []
    # Not splitlines(): a text may hold U+2028 and its kin, which JSON does not escape and which end no line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(_parse_line(line, where=f"{path}:{number}"))
        if limit is not None and len(rows) == limit:
            break
    return prompts_from_rows(rows, column=column, name=path.name)


def prompts_from_rows(
    rows: Sequence[Mapping[str, Any]], *, column: str = "prompt", name: str = "prompts"
) -> list[Prompt]:
    """Prompts of rows whose `column` is a text or a list of messages that ends in a user turn."""
    if not rows:
        raise DataError("there is no prompt to answer", where=name, expected="at least one row")
    return [_prompt(row, column, f"{name}/{number}") for number, row in enumerate(rows)]


def _parse_line(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}", where=where, expected="one JSON object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"a {type(row).__name__}, not an object", where=where, expected="one JSON object per line")
    return row


def _prompt(row: Mapping[str, Any], column: str, row_id: str) -> Prompt:
    if column not in row:
        raise DataError(
            f"no column {column!r}",
            where=row_id,
            expected=f"one of the row's columns: {', '.join(map(repr, row))}",
            fix="set evaluate.prompts.column",
        )
    value = row[column]
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
    well_formed = isinstance(messages, Sequence) and all(
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in messages
    )
    if not well_formed or not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise DataError(
            f"{column!r} holds {_shortened(value)}, which nobody can answer",
            where=row_id,
            expected="a text, or a list of {role, content} messages that ends in a user turn with words",
        )
    return Prompt(tuple(dict(message) for message in messages), row_id)


def _shortened(value: object, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
