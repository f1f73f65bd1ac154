"""Answers of several systems -> verdicts, and the readings of them that take length or style out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspo_hub.evaluate.arena import Games, arena_score
from inspo_hub.evaluate.judge import Judge
from inspo_hub.evaluate.length_control import (
    ALPACA_TABLES_LC,
    FEWEST_ROWS,
    LENGTH_ADJUSTED,
    length_controlled_difference,
    length_controlled_estimate,
)
from inspo_hub.evaluate.logistic import sigmoid
from inspo_hub.evaluate.result import BASE, Pair, pairs_of
from inspo_hub.evaluate.scores import Estimate, win_values
from inspo_hub.evaluate.style import style_controlled, style_difference, style_of
from inspo_hub.evaluate.verdicts import Order, Verdicts, judge_pair

if TYPE_CHECKING:
    from inspo_hub.evaluate.benchmarks import Benchmark
    from inspo_hub.evaluate.judges import AnyJudge
    from inspo_hub.evaluate.prompts import Prompt

ARENA_SCORE = "Arena-Hard's score by this judge, with the interval that its version quotes: not the leaderboard's"
STYLE_CONTROLLED = "style-controlled win rate, with Arena-Hard's features: not the leaderboard's"
ADJUSTED_RESAMPLES = 300
"""Each is a regression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the systems wrote, row by row, all in one order of rows."""

    prompts: Sequence[Prompt]
    """Of each row: a prompt stands once for each of its samples."""
    texts: Mapping[str, Sequence[str]]
    tokens: Mapping[str, Sequence[int]]
    opponents: Sequence[str]

    @property
    def clusters(self) -> list[str]:
        return [prompt.row_id for prompt in self.prompts]

    @property
    def pairs(self) -> list[Pair]:
        return pairs_of(list(self.texts), self.opponents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judge's work on all pairs."""

    name: str
    facts: Mapping[str, Any]
    scores: Mapping[str, Sequence[float]] | None
    well_formed: Mapping[str, Sequence[bool]] | None
    preferences: Mapping[Pair, Verdicts] | None
    """None where scores decide: the higher one wins."""


def judge_answers(judge: AnyJudge, answers: Answers, *, order: Order, max_failed: float, seed: int) -> Judged:
    """Scores where the judge scores, and a verdict for every row of every pair where it compares."""
    questions = [prompt.text for prompt in answers.prompts]
    if isinstance(judge, Judge):
        check, rows = (
            judge.well_formed,
            {name: list(zip(questions, t, strict=True)) for name, t in answers.texts.items()},
        )
        return Judged(
            name=judge.shown_name,
            facts={},
            scores={name: [judge.score(*row) for row in rows[name]] for name in rows},
            well_formed=None if check is None else {name: [bool(check(*row)) for row in rows[name]] for name in rows},
            preferences=None,
        )
    if hasattr(judge, "score_all"):
        scores = {name: judge.score_all(answers.prompts, texts) for name, texts in answers.texts.items()}
        preferences = {pair: _from_rewards(scores[pair[0]], scores[pair[1]]) for pair in answers.pairs}
    else:
        scores = None
        preferences = {
            (first, second): judge_pair(
                judge,
                questions,
                answers.texts[first],
                answers.texts[second],
                order=order,
                max_failed=max_failed,
                seed=seed,
            )
            for first, second in answers.pairs
        }
    return Judged(name=judge.shown_name, facts=judge.facts, scores=scores, well_formed=None, preferences=preferences)


def _from_rewards(rewards: Sequence[float], other: Sequence[float]) -> Verdicts:
    """σ of the difference, the Bradley-Terry probability that a reward model is trained for."""
    rows = len(rewards)
    nothing = np.full(rows, np.nan)
    return Verdicts(
        preferences=sigmoid(np.asarray(rewards, dtype=np.float64) - np.asarray(other, dtype=np.float64)),
        weights=np.ones(rows),
        first_shown=nothing,
        second_shown=nothing,
        weighted=rows,
        games=rows,
    )


def adjusted_readings(
    answers: Answers, judged: Judged, benchmark: Benchmark | None, *, resamples: int, seed: int
) -> dict[Pair, dict[str, Estimate]]:
    """Length-controlled, and for Arena-Hard style-controlled, win rates against each opponent; differences of twins."""
    found: dict[Pair, dict[str, Estimate]] = {pair: {} for pair in answers.pairs}
    if len(set(answers.clusters)) < FEWEST_ROWS:
        return found
    options: dict[str, Any] = {"resamples": min(resamples, ADJUSTED_RESAMPLES), "seed": seed}
    values = {pair: _preferences(judged, pair) for pair in answers.pairs}
    lengths = {name: [len(text) for text in texts] for name, texts in answers.texts.items()}
    for pair in answers.pairs:
        first, second = pair
        against = second if second in answers.opponents else answers.opponents[0]
        label, tables = _length_tables(answers, benchmark, against)
        if second in answers.opponents:
            reading = length_controlled_estimate(
                values[pair], lengths[first], lengths[second], answers.clusters, **tables, **options
            )
        else:
            each = [(values[name, against], lengths[name]) for name in pair]
            reading = length_controlled_difference(
                each[0], each[1], lengths[against], answers.clusters, **tables, **options
            )
            label = f"difference against {against}, {label}"
        if reading is not None:
            found[pair][label] = reading
    if benchmark is not None and benchmark.is_arena and benchmark.baseline in answers.opponents:
        played = _games(answers, judged, benchmark)
        styled = style_controlled(played, **options).scores
        for name, (games, _) in played.items():
            readings = found[name, benchmark.baseline]
            readings[ARENA_SCORE] = arena_score(games, version=benchmark.arena_version, resamples=resamples, seed=seed)
            readings[STYLE_CONTROLLED] = styled[name]
    return found


def _preferences(judged: Judged, pair: Pair) -> np.ndarray:
    if judged.preferences is not None:
        return judged.preferences[pair].preferences
    assert judged.scores is not None
    return win_values(judged.scores[pair[0]], judged.scores[pair[1]])


def _length_tables(answers: Answers, benchmark: Benchmark | None, against: str) -> tuple[str, dict[str, Any]]:
    """(what the reading is, the tables that it takes)."""
    if benchmark is None or benchmark.tables is None or against != benchmark.baseline:
        return LENGTH_ADJUSTED, {}
    tables = benchmark.tables
    difficulty = tables.difficulty([prompt.text for prompt in answers.prompts])
    return ALPACA_TABLES_LC, {"difficulty": difficulty, "gamed": tables.gamed}


def _games(answers: Answers, judged: Judged, benchmark: Benchmark) -> dict[str, tuple[Games, np.ndarray]]:
    """Each system's games against the baseline, the two of a question as one, and what its style has more of."""
    styles = {
        name: [style_of(text, tokens) for text, tokens in zip(texts, answers.tokens[name], strict=True)]
        for name, texts in answers.texts.items()
    }
    played = {}
    for first, second in answers.pairs:
        if second == benchmark.baseline:
            weights = np.ones(len(answers.prompts))
            if judged.preferences is not None:
                weights = judged.preferences[first, second].weights
            games = Games(questions=answers.clusters, scores=_preferences(judged, (first, second)), weights=weights)
            played[first] = (games, style_difference(styles[first], styles[second]))
    return played


def opponents_of(against: str, systems: Sequence[str], benchmark: Benchmark | None, more: Sequence[str]) -> list[str]:
    """Whom the systems compete with, the most telling first."""
    found: list[str] = []
    if benchmark is not None and against in ("auto", "baseline", "both"):
        found.append(benchmark.baseline)
    if BASE in systems and (against in ("base", "both") or (against == "auto" and benchmark is None and not more)):
        found.append(BASE)
    return [*more, *found]
