"""What an evaluation found: estimates per system and per pair of systems. Numpy at most; `report` renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from inspo_hub.evaluate.scores import Estimate, difference, kl_divergence, mean_estimate, win_rate, win_values

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemAnswers:
    """The judged answers of one system, row by row; all systems of an evaluation have the same rows in one order."""

    name: str
    scores: Sequence[float]
    tokens: Sequence[int]
    """Tokens of each answer, the end token included."""
    words: Sequence[int]
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
    score: Estimate
    win_rate_against_base: Estimate | None
    kl_from_base: Estimate | None
    well_formed: float | None
    finished: float
    mean_tokens: float
    mean_words: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two systems head to head on the same prompts."""

    first: str
    second: str
    win_rate: Estimate
    """Of the first against the second."""
    score_difference: Estimate
    win_rate_difference: Estimate | None
    """Win rate against the base of the first minus that of the second, paired by row; None where one is the base."""

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
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def system(self, name: str) -> SystemResult:
        return next(system for system in self.systems if system.name == name)

    def comparison(self, first: str, second: str) -> Comparison:
        return next(pair for pair in self.comparisons if (pair.first, pair.second) == (first, second))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; estimates keep error, interval and number of prompts."""
        return {
            "prompts": self.prompts,
            "judge": self.judge,
            "settings": dict(self.settings),
            "systems": [_plain(system) for system in self.systems],
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
) -> EvaluationResult:
    """Every system against the base (the first of `answers`) and every two variants against each other.

    `clusters` names the prompt of each row.
    """
    assert answers, "an evaluation compares at least the base"
    assert answers[0].name == BASE, "the base comes first"
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    base, variants = answers[0], answers[1:]
    pairs = [(variant, base) for variant in variants] + list(combinations(variants, 2))
    return EvaluationResult(
        systems=tuple(_system(system, base, clusters, options) for system in answers),
        comparisons=tuple(_comparison(first, second, base, clusters, options) for first, second in pairs),
        prompts=len(set(clusters)),
        judge=judge,
        settings={**(settings or {}), "interval": level, "bootstrap": resamples},
        training=training or {},
    )


def _system(
    system: SystemAnswers, base: SystemAnswers, clusters: Sequence[object], options: Mapping[str, Any]
) -> SystemResult:
    is_base = system.name == base.name
    kl = None
    if system.logps is not None and system.reference_logps is not None:
        kl = kl_divergence(system.logps, system.reference_logps, clusters, **options)
    rows = len(system.scores)
    return SystemResult(
        name=system.name,
        score=mean_estimate(system.scores, clusters, **options),
        win_rate_against_base=None if is_base else win_rate(system.scores, base.scores, clusters, **options),
        kl_from_base=kl,
        well_formed=None if system.well_formed is None else sum(system.well_formed) / rows,
        finished=sum(system.finished) / rows,
        mean_tokens=sum(system.tokens) / rows,
        mean_words=sum(system.words) / rows,
    )


def _comparison(
    first: SystemAnswers,
    second: SystemAnswers,
    base: SystemAnswers,
    clusters: Sequence[object],
    options: Mapping[str, Any],
) -> Comparison:
    both_variants = base.name not in (first.name, second.name)
    wins = [win_values(system.scores, base.scores) for system in (first, second)]
    return Comparison(
        first=first.name,
        second=second.name,
        win_rate=win_rate(first.scores, second.scores, clusters, **options),
        score_difference=difference(first.scores, second.scores, clusters, **options),
        win_rate_difference=difference(wins[0], wins[1], clusters, **options) if both_variants else None,
    )


def _plain(value: SystemResult | Comparison) -> dict[str, Any]:
    fields = {name: getattr(value, name) for name in asdict(value)}
    return {name: item.to_dict() if isinstance(item, Estimate) else item for name, item in fields.items()}
