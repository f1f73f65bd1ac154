"""Two systems' answers to the same prompts, compared by a judge: one preference in [0, 1] per row, or a failure.

A judge of pairs sees an answer first and the other second, and judges like the second place (gpt-4-1106: 54 %). Each
row is asked in both orders and the preference is their mean; `seeded` asks once, in an order that the prompt decides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inspo_hub.errors import JudgeError

Order = Literal["both", "seeded"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Two answers to one prompt, in the order in which the judge sees them."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge made of one `Ask`."""

    preference: float | None
    """For the first answer, in [0, 1]; None: it failed."""
    weight: float = 1.0
    """3 for a strong verdict of Arena-Hard, else 1."""
    weighted: bool = False
    """Whether it comes from label probabilities; else it is a hard verdict."""
    failure: str = ""


class PairJudge(Protocol):
    """Decides between two answers that it sees together."""

    @property
    def shown_name(self) -> str: ...

    def compare(self, asks: Sequence[Ask], *, may_fail: int) -> list[Verdict]:
        """One verdict per ask, in their order. With more than `may_fail` failures it may stop, with a JudgeError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """How the first of two systems fares against the second, row by row."""

    preferences: NDArray[np.float64]
    """For the first system, NaN where the judge failed, `(rows,)`."""
    weights: NDArray[np.float64]
    first_shown: NDArray[np.float64]
    """The preference for it in the game where it was shown first; NaN where there was none."""
    second_shown: NDArray[np.float64]
    ties: int = 0
    """Rows with two equal answers, which are half without a question to the judge."""
    weighted: int = 0
    """Games decided by label probabilities, of `games`."""
    games: int = 0
    failures: tuple[str, ...] = field(default=())
    """What went wrong, a text for each failed row."""

    def summary(self) -> dict[str, Any]:
        """What a report says of it, beside the win rate."""
        return {
            "games": self.games,
            "weighted": self.weighted,
            "ties": self.ties,
            "failed": self.failed,
            "flip_rate": self.flip_rate,
            "first_place": self.first_place,
        }

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def flip_rate(self) -> float | None:
        """Share of the rows asked in both orders whose winner changed with the order; None without such rows."""
        both = np.isfinite(self.first_shown) & np.isfinite(self.second_shown)
        if not both.any():
            return None
        return float((np.sign(self.first_shown[both] - 0.5) * np.sign(self.second_shown[both] - 0.5) < 0).mean())

    @property
    def first_place(self) -> float | None:
        """Mean preference for the answer that is shown first, of rows asked in both orders; 0.5 has no bias."""
        both = np.isfinite(self.first_shown) & np.isfinite(self.second_shown)
        return float((self.first_shown[both] + 1 - self.second_shown[both]).mean() / 2) if both.any() else None


def judge_pair(
    judge: PairJudge,
    prompts: Sequence[str],
    answers: Sequence[str],
    other_answers: Sequence[str],
    *,
    order: Order = "both",
    max_failed: float = 0.02,
    seed: int = 0,
) -> Verdicts:
    """The verdicts on `answers` against `other_answers`, row by row.

    Raises:
        JudgeError: more than a share of `max_failed` of the rows failed; a mean over the others would be of other rows.
    """
    assert len(prompts) == len(answers) == len(other_answers)
    rows = len(prompts)
    asked: list[tuple[int, bool]] = []
    for row, (one, other) in enumerate(zip(answers, other_answers, strict=True)):
        if one == other:
            continue
        if order == "both":
            asked += [(row, True), (row, False)]
        else:
            asked.append((row, shown_first(prompts[row], seed)))
    asks = [
        Ask(prompts[row], answers[row], other_answers[row])
        if ours_first
        else Ask(prompts[row], other_answers[row], answers[row])
        for row, ours_first in asked
    ]
    may_fail = math.floor(max_failed * rows)
    verdicts = judge.compare(asks, may_fail=may_fail) if asks else []
    assert len(verdicts) == len(asks), "one verdict per ask"
    found = _by_row(rows, asked, verdicts, [one == other for one, other in zip(answers, other_answers, strict=True)])
    if found.failed > may_fail:
        raise too_many_failures(judge.shown_name, found.failed, rows, found.failures[0], of="rows")
    return found


def shown_first(prompt: str, seed: int = 0) -> bool:
    """Whether the first system is shown first where a prompt is asked in one order only."""
    return random.Random(f"shown first\x1f{seed}\x1f{prompt}").random() < 0.5


def _by_row(
    rows: int, asked: Sequence[tuple[int, bool]], verdicts: Sequence[Verdict], equal: Sequence[bool]
) -> Verdicts:
    shown = np.full((2, rows), np.nan)
    weights = np.ones((2, rows))
    failures: dict[int, str] = {}
    for (row, ours_first), verdict in zip(asked, verdicts, strict=True):
        place = 0 if ours_first else 1
        if verdict.preference is None:
            failures.setdefault(row, verdict.failure)
        else:
            shown[place, row] = verdict.preference if ours_first else 1 - verdict.preference
            weights[place, row] = verdict.weight
    there = np.isfinite(shown)
    summed = np.where(there, weights, 0.0).sum(axis=0)
    mean = np.where(there, weights * np.nan_to_num(shown), 0.0).sum(axis=0) / np.where(summed > 0, summed, 1.0)
    preferences = np.where(equal, 0.5, np.where(summed > 0, mean, np.nan))
    # A row of which one order failed has only the biased half of its answer.
    preferences[list(failures)] = np.nan
    # Per row and not per game: two equal answers, which no game was played about, weigh as much as any.
    per_game = summed / np.maximum(there.sum(axis=0), 1)
    return Verdicts(
        preferences=preferences,
        weights=np.where(np.isfinite(preferences) & (summed > 0), per_game, 1.0),
        first_shown=shown[0],
        second_shown=shown[1],
        ties=int(np.sum(equal)),
        weighted=sum(verdict.weighted for verdict in verdicts),
        games=len(verdicts),
        failures=tuple(failures[row] for row in sorted(failures)),
    )


def too_many_failures(judge: str, failed: int, asked: int, example: str, *, of: str = "questions") -> JudgeError:
    """The refusal of a comparison whose judge failed too often."""
    return JudgeError(
        f"{failed} of {asked} {of} were not judged; the first: {example}",
        where=f"evaluate.judge: {judge}",
        expected="at most evaluate.judge.max_failed of the rows",
        fix="see what the judge answered; repeating the command asks only what has no answer yet",
    )
