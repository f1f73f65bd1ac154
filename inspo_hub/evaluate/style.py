"""Arena-Hard's style control: a Bradley-Terry regression with the style of the answers beside who wrote them.

Four features per game, of system against baseline: answer length, and densities of headings, lists and bold text. The
score is the win probability at equal style. The official code centres the features over all games, which takes the
pool's average style for equal style, so that with one system nothing is corrected; here they are scaled, not centred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from inspo_hub.evaluate.arena import INTERVAL, Games, Version
from inspo_hub.evaluate.logistic import Floats, l1_logistic, sigmoid
from inspo_hub.evaluate.scores import Estimate, bootstrap_estimate, cluster_numbers, resampled_counts

FEATURES = ("length", "headers", "lists", "bold")

_CODE = re.compile(r"```[^`]*```")
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LIST = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_RIDGE = 1e-6
"""L1 weight beside a sum over games: keeps a system that never loses from an infinite strength, and moves no other."""


@dataclass(frozen=True, slots=True)
class Style:
    """What style control knows of one answer. `tokens` by any one tokenizer (officially that of gpt-4o)."""

    tokens: int
    headers: int
    lists: int
    bold: int


def style_of(text: str, tokens: int) -> Style:
    """Counts of Markdown outside code blocks."""
    prose = _CODE.sub("", text)
    return Style(tokens, len(_HEADER.findall(prose)), len(_LIST.findall(prose)), len(_BOLD.findall(prose)))


def style_difference(system: Sequence[Style], baseline: Sequence[Style]) -> Floats:
    """`(rows, 4)`, positive where the system has more: (m-b)/(m+b) of lengths, (dₘ-d_b)/(dₘ+d_b+1) of densities."""
    ours, theirs = (np.array([_counts(style) for style in styles]).reshape(-1, 4) for styles in (system, baseline))
    lengths = np.maximum(ours[:, :1] + theirs[:, :1], 1.0)  # two empty answers are equally long
    length = (ours[:, :1] - theirs[:, :1]) / lengths
    dense, other = ours[:, 1:] / (ours[:, :1] + 1), theirs[:, 1:] / (theirs[:, :1] + 1)
    return np.concatenate([length, (dense - other) / (dense + other + 1)], axis=1)


def _counts(style: Style) -> tuple[float, ...]:
    return float(style.tokens), float(style.headers), float(style.lists), float(style.bold)


@dataclass(frozen=True, slots=True)
class StyleControlled:
    """Win probability of each system against the baseline at equal style, and what style was worth."""

    scores: Mapping[str, Estimate]
    coefficients: Mapping[str, float]
    """Log-odds per standard deviation of each feature, in favour of the answer that has more of it."""


def style_controlled(
    played: Mapping[str, tuple[Games, ArrayLike]],
    *,
    version: Version = "2.0",
    center: bool = False,
    level: float | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> StyleControlled:
    """Bradley-Terry strengths of all systems against one baseline, fitted together with the effect of style.

    Args:
        played: system -> (its games, the style difference of each game `(games, 4)`).
        center: subtract the features' mean, as the official code does; for conformance only.
        resamples: draws of questions behind the intervals; a question is drawn with all of its games.
    """
    names = list(played)
    rows = [_counted(games, features, version) for games, features in played.values()]
    counted = [games for games, _ in rows]
    design = _design(rows, center=center)
    targets = np.concatenate([games.scores for games in counted])
    weights = np.concatenate([games.weights for games in counted])
    questions = [question for games in counted for question in games.questions]
    index, groups = cluster_numbers(questions, len(questions))
    found = l1_logistic(design, targets, weights, penalty=_RIDGE)
    draws = [
        sigmoid(l1_logistic(design, targets, weights * counts[index], penalty=_RIDGE, start=found)[: len(names)])
        for counts in resampled_counts(groups, resamples, seed)
    ]
    scores = {
        name: bootstrap_estimate(
            float(sigmoid(found[number : number + 1])[0]),
            [draw[number] for draw in draws],
            INTERVAL[version] if level is None else level,
            rows=len(counted[number].scores),
            clusters=len(set(counted[number].questions)),
        )
        for number, name in enumerate(names)
    }
    return StyleControlled(scores, dict(zip(FEATURES, found[len(names) :].tolist(), strict=True)))


def _design(rows: Sequence[tuple[Games, Floats]], *, center: bool) -> Floats:
    """Whose game it is, one column for each system, and its style in standard deviations over all games."""
    style = np.concatenate([features for _, features in rows])
    spread = style.std(axis=0)
    scaled = (style - (style.mean(axis=0) if center else 0.0)) / np.where(spread > 0, spread, 1.0)
    system = np.repeat(np.arange(len(rows)), [len(games.scores) for games, _ in rows])
    return np.concatenate([np.eye(len(rows))[system], scaled], axis=1)


def _counted(games: Games, features: ArrayLike, version: Version) -> tuple[Games, Floats]:
    """The games that count, with their features."""
    style = np.asarray(features, dtype=np.float64)
    assert style.shape == (len(games.scores), len(FEATURES)), "one row of four features for each game"
    return games.counted(version), style[games.kept(version)]
