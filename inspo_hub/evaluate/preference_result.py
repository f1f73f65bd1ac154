"""Log-probabilities of pairs in contexts -> accuracies and margins with clustered errors; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspo_hub.evaluate.alternatives import CONTEXTS
from inspo_hub.evaluate.result import BASE, in_words
from inspo_hub.evaluate.scores import Estimate, difference, mean_estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """One system's log-probabilities of the held-out responses; the columns of an array are chosen and rejected."""

    row_ids: tuple[str, ...]
    prompts: tuple[object, ...]
    """What each pair's prompt is, as a cluster."""
    lengths: NDArray[np.int64]
    """Tokens of both responses, `(pairs, 2)`."""
    logps: Mapping[str, Floats]
    """Context -> summed log-probabilities in nats, `(pairs, 2)`."""
    reference_logps: Mapping[str, Floats]
    """The same by the base, in the same contexts."""

    def margins(self, context: str) -> Floats:
        """log π/π_base of chosen less that of rejected, `(pairs,)`."""
        ratios = self.logps[context] - self.reference_logps[context]
        return ratios[:, 0] - ratios[:, 1]


@dataclass(frozen=True, kw_only=True)
class ContextResult:
    """What one system prefers in one context. Accuracies are shares of pairs, a tie counts a half."""

    accuracy: Estimate | None
    """By the sign of the margin against the base; None for the base itself, whose margins are 0."""
    margin: Estimate | None
    """Nats, not multiplied by β."""
    accuracy_without_reference: Estimate
    """By log π(y_w|c) - log π(y_l|c) alone."""
    accuracy_per_token: Estimate
    """The same with mean log-probabilities of tokens."""
    chosen_longer: Estimate | None
    """`accuracy` of the pairs whose chosen response is the longer one; without the base for the base itself."""
    chosen_shorter: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        names = self.__dataclass_fields__
        found = {name: getattr(self, name) for name in names}
        return {name: None if value is None else value.to_dict() for name, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class PreferenceDifference:
    """Accuracy of one variant less that of another in one context, pair by pair."""

    first: str
    second: str
    context: str
    accuracy: Estimate

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        higher, lower = (f"{name} is right more often" for name in (self.first, self.second))
        return in_words(self.accuracy, 0.0, higher=higher, lower=lower)


@dataclass(frozen=True, kw_only=True)
class PreferenceResult:
    """Held-out preferences of the base and every variant."""

    systems: Mapping[str, Mapping[str, ContextResult]]
    """System -> context -> what was found."""
    differences: tuple[PreferenceDifference, ...]
    """Every variant against the first one, where both were measured on the same pairs."""
    distillation_gaps: Mapping[str, Estimate]
    """Variant -> margin given the alternative of training less the plain margin, nats."""
    pairs: int
    prompts: int
    longer_chosen: float
    """Share of pairs whose chosen response is the longer one: what "longer wins" gets right."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "pairs": self.pairs,
            "prompts": self.prompts,
            "longer_chosen": self.longer_chosen,
            "margin": "log π/π_base of chosen less that of rejected, the base in the same context; nats, without β",
            "contexts": {
                name: CONTEXTS[name] for name in CONTEXTS if any(name in own for own in self.systems.values())
            },
            "settings": dict(self.settings),
            "systems": {
                name: {context: found.to_dict() for context, found in contexts.items()}
                for name, contexts in self.systems.items()
            },
            "differences": [
                {
                    "first": each.first,
                    "second": each.second,
                    "context": each.context,
                    "accuracy": each.accuracy.to_dict(),
                    "verdict": each.verdict,
                }
                for each in self.differences
            ],
            "distillation_gaps": {name: gap.to_dict() for name, gap in self.distillation_gaps.items()},
        }


def summarise(
    scores: Mapping[str, PairScores], *, resamples: int = 1000, seed: int = 0, settings: Mapping[str, Any] | None = None
) -> PreferenceResult:
    """Estimates of every system in every context, clustered by prompt; `scores` has the base under its name."""
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    variants = [name for name in scores if name != BASE]
    first = scores[variants[0]]
    return PreferenceResult(
        systems={
            name: {context: _context(one, context, name == BASE, options) for context in one.logps}
            for name, one in scores.items()
        },
        differences=tuple(_differences(scores, variants, options)),
        distillation_gaps={
            name: difference(one.margins("seen"), one.margins("plain"), one.prompts, **options)
            for name, one in scores.items()
            if name != BASE
        },
        pairs=len(first.row_ids),
        prompts=len(set(first.prompts)),
        longer_chosen=float(_wins(np.diff(first.lengths, axis=1)[:, 0] * -1.0).mean()),
        settings=settings or {},
    )


def _context(scores: PairScores, context: str, is_base: bool, options: Mapping[str, Any]) -> ContextResult:
    logps, lengths = scores.logps[context], scores.lengths
    alone = logps[:, 0] - logps[:, 1]
    means = logps / lengths
    margins = scores.margins(context)
    right = _wins(alone if is_base else margins)

    def estimate(values: Floats, rows: NDArray[np.bool_] | None = None) -> Estimate | None:
        kept = np.ones(len(values), bool) if rows is None else rows
        if not kept.any():
            return None
        clusters = [prompt for prompt, keep in zip(scores.prompts, kept, strict=True) if keep]
        return mean_estimate(values[kept], clusters, **options)

    without, per_token = estimate(_wins(alone)), estimate(_wins(means[:, 0] - means[:, 1]))
    assert without is not None
    assert per_token is not None
    return ContextResult(
        accuracy=None if is_base else estimate(right),
        margin=None if is_base else estimate(margins),
        accuracy_without_reference=without,
        accuracy_per_token=per_token,
        chosen_longer=estimate(right, lengths[:, 0] > lengths[:, 1]),
        chosen_shorter=estimate(right, lengths[:, 0] < lengths[:, 1]),
    )


def _differences(
    scores: Mapping[str, PairScores], variants: Sequence[str], options: Mapping[str, Any]
) -> list[PreferenceDifference]:
    first = scores[variants[0]]
    found = []
    for name in variants[1:]:
        other = scores[name]
        if other.row_ids != first.row_ids:
            continue
        for context in first.logps:
            if context in other.logps:
                mine, its = (_wins(one.margins(context)) for one in (other, first))
                gain = difference(mine, its, first.prompts, **options)
                found.append(PreferenceDifference(first=name, second=variants[0], context=context, accuracy=gain))
    return found


def _wins(margins: Floats) -> Floats:
    return 0.5 + 0.5 * np.sign(margins)
