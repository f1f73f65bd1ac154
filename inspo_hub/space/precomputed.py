"""Comparisons that an evaluation wrote: for a Space without compute, and at once on any machine."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub.errors import DataError
from inspo_hub.space.config import HELDOUT
from inspo_hub.space.rounds import Message, Piece


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt with the answers of both systems, the judge's scores of them, and the prompt's category."""

    row: str
    conversation: tuple[Message, ...]
    answers: dict[str, Piece]
    scores: dict[str, float]
    category: str

    @property
    def prompt(self) -> str:
        return self.conversation[-1]["content"]

    @property
    def differs(self) -> bool:
        return len({piece.text for piece in self.answers.values()}) > 1


class Precomputed:
    """The comparisons of two systems in a generations.jsonl, found by row or by the words of their prompt."""

    def __init__(self, file: Path, names: Sequence[str], rng: random.Random | None = None) -> None:
        self.comparisons = list(_read(file, names))
        self._by_row = {each.row: each for each in self.comparisons}
        self._by_prompt = {each.prompt.strip(): each for each in reversed(self.comparisons)}
        # Two answers of the same words ask for no vote; they are shown to those who look for them.
        self._telling = [each for each in self.comparisons if each.differs] or self.comparisons
        self._rng = rng or random.Random()

    @property
    def prompts(self) -> list[str]:
        """Every prompt once, in the order of the file."""
        return list(dict.fromkeys(each.prompt for each in self.comparisons))

    def find(self, prompt: str = "", row: str = "") -> Comparison:
        """The comparison of a row or a prompt; any one where neither is given.

        Raises:
            DataError: nobody has answered that.
        """
        if row and row in self._by_row:
            return self._by_row[row]
        if prompt.strip() in self._by_prompt:
            return self._by_prompt[prompt.strip()]
        if row or prompt.strip():
            raise DataError(
                "nobody has answered this prompt",
                where="prompt",
                expected=f"one of the {len(self._by_prompt)} prompts of the evaluation: no model runs here",
                fix="choose one of the list",
            )
        return self._rng.choice(self._telling)


def _read(file: Path, names: Sequence[str]) -> Iterator[Comparison]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(f"cannot be read: {error}", file) from error
    found = False
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            found = True
            yield _comparison(line, names, f"{file}:{number}")
    if not found:
        raise _unreadable("has no rows", file)


def _comparison(line: str, names: Sequence[str], where: str) -> Comparison:
    try:
        row: dict[str, Any] = json.loads(line)
        responses = row["responses"]
        missing = [name for name in names if name not in responses]
        if missing:
            raise DataError(
                f"no answer of {', '.join(map(repr, missing))}",
                where=where,
                expected=f"answers of {' and '.join(map(repr, names))}",
                fix=f"the file has answers of {', '.join(map(repr, responses))}: name two of them as systems",
            )
        return Comparison(
            row=f"{row['row_id']}#{row['sample']}",
            conversation=tuple({"role": each["role"], "content": each["content"]} for each in row["prompt"]),
            answers={
                name: Piece(
                    text=responses[name],
                    tokens=row["tokens"][name],
                    state="finished" if row["finished"][name] else "cut",
                )
                for name in names
            },
            scores={name: float(row["scores"][name]) for name in names if row["scores"].get(name) is not None},
            category=str(row.get("category") or HELDOUT),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(f"{type(error).__name__}: {error}", where) from error


def _unreadable(what: str, where: object) -> DataError:
    return DataError(
        f"the answers of the evaluation: {what}",
        where=str(where),
        expected="report/generations.jsonl of a run with `evaluate`",
        fix="evaluate the run, or compare its models live",
    )
