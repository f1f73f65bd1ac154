"""What an evaluation found: estimates per system and per pair of systems. Numpy at most; `report` renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any

import numpy as np

from inspo_hub.evaluate.frontier import on_frontier
from inspo_hub.evaluate.scores import Estimate, Floats, difference, kl_divergence, mean_estimate, win_values
from inspo_hub.evaluate.verdicts import Verdicts

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemAnswers:
    """The judged answers of one system, row by row; all systems of an evaluation have the same rows in one order."""

    name: str
    scores: Sequence[float] | None
    """None where the judge compares and does not score."""
    tokens: Sequence[int]
    """Tokens of each answer, the end token included."""
    words: Sequence[int]
    characters: Sequence[int] | None = None
    finished: Sequence[bool]
    well_formed: Sequence[bool] | None = None
    """None where the judge cannot tell."""
    logps: Sequence[float] | None = None
    """log π(y|x) of answers that the system drew from its own distribution; None for the base itself."""
    reference_logps: Sequence[float] | None = None
    """log π_base(y|x) of the same answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemResult:
    """One row of the comparison: what a system is like on its own and against the base."""

    name: str
    score: Estimate | None
    win_rate_against_base: Estimate | None
    kl_from_base: Estimate | None
    well_formed: float | None
    finished: float
    mean_tokens: float
    mean_words: float
    mean_characters: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two systems head to head on the same prompts."""

    first: str
    second: str
    win_rate: Estimate
    """Of the first against the second."""
    score_difference: Estimate | None
    win_rate_difference: Estimate | None
    """Win rate against the opponent of the first minus that of the second, paired by row; None where one is it."""
    adjusted: Mapping[str, Estimate] = field(default_factory=dict)
    """Other readings of the same verdicts, by what they are: length-controlled, style-controlled."""
    judging: Mapping[str, Any] = field(default_factory=dict)
    """How a judge of pairs went: questions, failures, ties, share of verdicts that turn with the order."""

    @property
    def verdict(self) -> str:
        """What the interval of the win rate says, in words."""
        return in_words(self.win_rate, 0.5, higher=f"{self.first} is better", lower=f"{self.second} is better")


def in_words(estimate: Estimate, null: float, *, higher: str, lower: str) -> str:
    """`higher` or `lower` where the interval excludes `null`, else that there is no difference to be seen."""
    if not estimate.excludes(null):
        return "no difference"
    return higher if estimate.value > null else lower


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """The whole of one evaluation. `settings` says how it was made, `training` what each variant cost and reached."""

    systems: tuple[SystemResult, ...]
    comparisons: tuple[Comparison, ...]
    prompts: int
    judge: str
    opponents: tuple[str, ...] = (BASE,)
    """Whom every system was compared with; the first is the one that differences of win rates are against."""
    judging: Mapping[str, Any] = field(default_factory=dict)
    """What a reader must know of the judge beside its name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def system(self, name: str) -> SystemResult:
        return next(system for system in self.systems if system.name == name)

    def win_rate(self, name: str, opponent: str) -> Estimate | None:
        """Of a system against an opponent; None where they were not compared."""
        pairs = (pair for pair in self.comparisons if (pair.first, pair.second) == (name, opponent))
        return next((pair.win_rate for pair in pairs), None)

    def comparison(self, first: str, second: str) -> Comparison:
        return next(pair for pair in self.comparisons if (pair.first, pair.second) == (first, second))

    def frontier(self) -> list[dict[str, Any]]:
        """Systems on the plane of KL and win rate against the first opponent, and whether another one beats them.

        A point that is beaten may be so by chance: the intervals are with the systems.
        """
        rates = [self.win_rate(system.name, self.opponents[0]) for system in self.systems]
        placed = [
            (system.name, system.kl_from_base.value, rate.value)
            for system, rate in zip(self.systems, rates, strict=True)
            if system.kl_from_base is not None and rate is not None
        ]
        best = on_frontier([kl for _, kl, _ in placed], [rate for _, _, rate in placed]).tolist()
        keys = ("system", "kl", "win_rate", "on_frontier")
        return [dict(zip(keys, (*point, each), strict=True)) for point, each in zip(placed, best, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; estimates keep error, interval and number of prompts."""
        return {
            "prompts": self.prompts,
            "judge": self.judge,
            "judging": dict(self.judging),
            "opponents": list(self.opponents),
            "settings": dict(self.settings),
            "systems": [_plain(system) for system in self.systems],
            "frontier": self.frontier(),
            "comparisons": [_plain(pair) | {"verdict": pair.verdict} for pair in self.comparisons],
            "training": {name: dict(numbers) for name, numbers in self.training.items()},
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """The comparison as Markdown tables, for cards and reports."""
        from inspo_hub.evaluate.report import to_markdown

        return to_markdown(self)

    def to_text(self) -> str:
        """The same tables for a terminal."""
        from inspo_hub.evaluate.report import to_text

        return to_text(self)


Pair = tuple[str, str]


def pairs_of(names: Sequence[str], opponents: Sequence[str] = (BASE,)) -> list[Pair]:
    """Who is compared: every system with each opponent, and every two that are none (nor the base) with one another."""
    against = [(name, opponent) for opponent in opponents for name in names if name not in opponents]
    return against + list(combinations([name for name in names if name not in (*opponents, BASE)], 2))


def compare_table(
    answers: Sequence[SystemAnswers],
    clusters: Sequence[object],
    *,
    judge: str,
    settings: Mapping[str, Any] | None = None,
    training: Mapping[str, Mapping[str, float | None]] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    opponents: Sequence[str] = (BASE,),
    preferences: Mapping[Pair, Verdicts] | None = None,
    adjusted: Mapping[Pair, Mapping[str, Estimate]] | None = None,
    judging: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """Every system against the opponents and every two variants against each other.

    Args:
        clusters: the prompt of each row.
        preferences: of a judge of pairs, for `pairs_of(names, opponents)`; without, scores decide.
        adjusted: other readings of a pair's verdicts, by their names.
    """
    assert answers, "an evaluation compares at least one system"
    by_name = {system.name: system for system in answers}
    assert set(opponents) <= set(by_name), "opponents are among the systems"
    table = _Table(by_name, clusters, {"level": level, "resamples": resamples, "seed": seed}, opponents, preferences)
    pairs = pairs_of(list(by_name), opponents)
    return EvaluationResult(
        systems=tuple(table.system(system) for system in answers),
        comparisons=tuple(table.comparison(pair, (adjusted or {}).get(pair, {})) for pair in pairs),
        prompts=len(set(clusters)),
        judge=judge,
        opponents=tuple(opponents),
        judging=judging or {},
        settings={**(settings or {}), "interval": level, "bootstrap": resamples},
        training=training or {},
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """All rows of an evaluation, and how intervals are made of them."""

    answers: Mapping[str, SystemAnswers]
    clusters: Sequence[object]
    options: Mapping[str, Any]
    opponents: Sequence[str]
    preferences: Mapping[Pair, Verdicts] | None

    def system(self, system: SystemAnswers) -> SystemResult:
        kl = None
        if system.logps is not None and system.reference_logps is not None:
            kl = kl_divergence(system.logps, system.reference_logps, self.clusters, **self.options)
        rows = len(system.tokens)
        against_base = system.name not in (BASE, *self.opponents) and BASE in self.opponents
        return SystemResult(
            name=system.name,
            score=None if system.scores is None else mean_estimate(system.scores, self.clusters, **self.options),
            win_rate_against_base=self.win_rate((system.name, BASE)) if against_base else None,
            kl_from_base=kl,
            well_formed=None if system.well_formed is None else sum(system.well_formed) / rows,
            finished=sum(system.finished) / rows,
            mean_tokens=sum(system.tokens) / rows,
            mean_words=sum(system.words) / rows,
            mean_characters=None if system.characters is None else sum(system.characters) / rows,
        )

    def comparison(self, pair: Pair, adjusted: Mapping[str, Estimate]) -> Comparison:
        first, second = (self.answers[name] for name in pair)
        scores = None
        if first.scores is not None and second.scores is not None:
            scores = difference(first.scores, second.scores, self.clusters, **self.options)
        return Comparison(
            first=first.name,
            second=second.name,
            win_rate=self.win_rate(pair),
            score_difference=scores,
            win_rate_difference=self._difference(pair),
            adjusted=adjusted,
            judging={} if self.preferences is None else self.preferences[pair].summary(),
        )

    def win_rate(self, pair: Pair) -> Estimate:
        """Of the rows that were judged."""
        values, weights = self._values(pair)
        kept = np.flatnonzero(np.isfinite(values)).tolist()
        clusters = [self.clusters[row] for row in kept]
        return mean_estimate(values[kept], clusters, weights=weights[kept], **self.options)

    def _values(self, pair: Pair) -> tuple[Floats, Floats]:
        """The preference for the first in each row (NaN: not judged), and what the row weighs."""
        if self.preferences is not None:
            verdicts = self.preferences[pair]
            return verdicts.preferences, verdicts.weights
        first, second = (self.answers[name].scores for name in pair)
        assert first is not None, "without preferences, scores decide"
        assert second is not None, "without preferences, scores decide"
        values = win_values(first, second)
        return values, np.ones_like(values)

    def _difference(self, pair: Pair) -> Estimate | None:
        opponent = self.opponents[0]
        if BASE in pair or set(pair) & set(self.opponents):
            return None
        values = [self._values((name, opponent))[0] for name in pair]
        kept = np.flatnonzero(np.isfinite(values[0]) & np.isfinite(values[1])).tolist()
        return difference(values[0][kept], values[1][kept], [self.clusters[row] for row in kept], **self.options)


def _plain(value: SystemResult | Comparison) -> dict[str, Any]:
    return {each.name: _as_json(getattr(value, each.name)) for each in fields(value)}


def _as_json(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_dict()
    return {key: _as_json(item) for key, item in value.items()} if isinstance(value, Mapping) else value
