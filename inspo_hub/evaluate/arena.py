"""Arena-Hard's score: verdicts such as [[A>>B]] of two games per question, answers swapped, against one baseline.

Rules of versions 0.1 and 2.0 as in lmarena/arena-hard-auto: a strong verdict counts three times, a tie half. With one
baseline its Bradley-Terry score is the weighted mean of the games, so that is what is computed. Intervals are over
questions: the three copies of a strong verdict, and the two games of a question, are not independent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inspo_hub.evaluate.logistic import Floats
from inspo_hub.evaluate.scores import Estimate, cluster_numbers, mean_estimate

Version = Literal["0.1", "2.0"]
STRONG_WEIGHT = 3.0
INTERVAL: dict[Version, float] = {"0.1": 0.95, "2.0": 0.90}
"""What the official tables quote; ours default to it too."""

_PATTERNS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))
_OUTCOMES = {
    "A>>B": (1.0, STRONG_WEIGHT),
    "A>B": (1.0, 1.0),
    "A=B": (0.5, 1.0),
    "B>A": (0.0, 1.0),
    "B>>A": (0.0, STRONG_WEIGHT),
    "B<<A": (1.0, STRONG_WEIGHT),
    "B<A": (1.0, 1.0),
    "B=A": (0.5, 1.0),
    "A<B": (0.0, 1.0),
    "A<<B": (0.0, STRONG_WEIGHT),
}
"""Verdict -> (A's score, weight)."""


def parse_verdict(text: str) -> tuple[float, float] | None:
    """(score of answer A in {0, 0.5, 1}, weight) of a judge's text; None where it holds no verdict.

    The last match of the first pattern that matches, in capitals. `[[A>>A]]` is no verdict.
    """
    for pattern in _PATTERNS:
        found = pattern.findall(text.upper())
        if found:
            return _OUTCOMES.get(found[-1])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Games:
    """Games of one system against the baseline: question, the system's score in [0, 1] (NaN: failed), weight."""

    questions: Sequence[object]
    scores: Floats
    weights: Floats

    def kept(self, version: Version) -> NDArray[np.bool_]:
        """Which games the rules count: 0.1 leaves out a failed game, 2.0 every game of its question."""
        failed = ~np.isfinite(self.scores)
        if version == "2.0":
            index, groups = cluster_numbers(self.questions, len(self.scores))
            failed = np.bincount(index, weights=failed, minlength=groups)[index] > 0
        return ~failed

    def counted(self, version: Version) -> Games:
        """Only those games."""
        rows = np.flatnonzero(self.kept(version)).tolist()
        return Games(
            questions=[self.questions[row] for row in rows], scores=self.scores[rows], weights=self.weights[rows]
        )


def games(questions: Sequence[object], model_second: Sequence[str | None], model_first: Sequence[str | None]) -> Games:
    """Both games of each question from the judge's texts; the baseline is A in `model_second`, B in the other."""
    assert len(questions) == len(model_second) == len(model_first)
    first = [_outcome(text, swapped=True) for text in model_second]
    second = [_outcome(text, swapped=False) for text in model_first]
    rows = np.array([*first, *second], dtype=np.float64).reshape(-1, 2)
    return Games(questions=[*questions, *questions], scores=rows[:, 0], weights=rows[:, 1])


def _outcome(text: str | None, *, swapped: bool) -> tuple[float, float]:
    parsed = None if text is None else parse_verdict(text)
    if parsed is None:
        return float("nan"), 1.0
    score, weight = parsed
    return (1.0 - score if swapped else score), weight


def arena_score(
    played: Games, *, version: Version = "2.0", level: float | None = None, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """The weighted share of games that the system wins, with an interval over questions."""
    counted = played.counted(version)
    return mean_estimate(
        counted.scores,
        counted.questions,
        weights=counted.weights,
        level=INTERVAL[version] if level is None else level,
        resamples=resamples,
        seed=seed,
    )
