"""`CardFacts`: everything a card says, as plain data. Where a field is None nothing was measured or is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inspo_hub import __version__

if TYPE_CHECKING:
    from inspo_hub.hub import Pinned, RepoMetadata
    from inspo_hub.recipe import Recipe

Record = Mapping[str, Any]
"""One line of metrics.jsonl: `step`, `split` (train or heldout), and numbers by metric name."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Another variant of the same recipe, trained on the same pairs in the same order."""

    name: str
    summary: Mapping[str, Any]
    repo_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What one trained variant is, how it came to be and what was measured."""

    variant: str
    recipe: Recipe
    """The variant's own resolved recipe."""
    base: Pinned
    summary: Mapping[str, Any]
    """The content of trained.json."""
    lock: Mapping[str, Any] = field(default_factory=dict)
    base_metadata: RepoMetadata | None = None
    """What the base's repository or folder says about itself; the license is inherited from it."""
    train: Sequence[Pinned] = ()
    """The training data sets, in the recipe's order."""
    heldout: Sequence[Pinned] = ()
    reference: Pinned | None = None
    """Where the reference is not the policy before training."""
    metrics: Sequence[Record] = ()
    """The lines of metrics.jsonl."""
    data_report: Mapping[str, Any] | None = None
    """`DataReport.to_dict()`."""
    evaluation: Mapping[str, Any] | None = None
    """`EvaluationResult.to_dict()`; its systems are `base` and the variants by name."""
    preferences: Mapping[str, Any] | None = None
    """`PreferenceResult.to_dict()` of all variants."""
    latency: Mapping[str, Any] | None = None
    """`LatencyResult.to_dict()` of all variants."""
    samples: Sequence[Mapping[str, Any]] = ()
    """The first lines of generations.jsonl: prompt, and every system's answer."""
    repo_id: str | None = None
    """Where this model is or will be published."""
    twins: Sequence[Twin] = ()
    example: str | Sequence[Mapping[str, str]] | None = None
    """A real prompt: messages for a chat model, a text for one without chat template."""
    base_adapter: Pinned | None = None
    """The adapter that training started from; None for a new one."""
    package_version: str = __version__

    @property
    def is_adapter(self) -> bool:
        return self.recipe.adapter is not None

    @property
    def title(self) -> str:
        return self.repo_id.rpartition("/")[2] if self.repo_id else self.recipe.name

    @property
    def conditioned(self) -> bool:
        """Whether an alternative was in any context that was trained."""
        return self.recipe.conditioning.name != "none"

    @property
    def starts_at_reference(self) -> bool:
        """Whether every plain log-ratio is 0 before the first step: policy and reference are one model then."""
        return self.recipe.objective.uses_reference and self.reference is None

    @property
    def hub_datasets(self) -> list[str]:
        """Hub ids of training and held-out data, each once; local files have none."""
        return list(dict.fromkeys(pin.id for pin in (*self.train, *self.heldout) if not pin.is_local))


def heldout_measures(summary: Mapping[str, Any]) -> tuple[Record, Record]:
    """(before, after) on the held-out pairs: at step 0 and at the last step that was measured; empty where neither."""
    records: list[Record] = [summary.get(name) or {} for name in ("heldout_before", "heldout")]
    before = next((record for record in records if record.get("step") == 0), {})
    after = records[1] if records[1].get("step") != 0 else {}
    return _finite(before), _finite(after)


def _finite(record: Record) -> Record:
    """The record without numbers that are not finite: they are no measurement."""
    return {key: value for key, value in record.items() if not isinstance(value, float) or math.isfinite(value)}


def system_of(evaluation: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """The row of a system in an evaluation, or None."""
    systems = (evaluation or {}).get("systems") or ()
    return next((system for system in systems if system["name"] == name), None)


def opponent_of(evaluation: Mapping[str, Any] | None) -> str:
    """Whom the answers of an evaluation compete with first: the base, or a benchmark's published answers."""
    opponents = (evaluation or {}).get("opponents") or ("base",)
    return str(opponents[0])


def _against_opponent(evaluation: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    against = (name, opponent_of(evaluation))
    pairs = (evaluation or {}).get("comparisons") or ()
    return next((pair for pair in pairs if (pair["first"], pair["second"]) == against), {})


def win_rate_of(evaluation: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """The win rate of a system against the evaluation's opponent, as an estimate; None where there is none."""
    found: Mapping[str, Any] | None = _against_opponent(evaluation, name).get("win_rate")
    return found


def adjusted_of(evaluation: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """Other readings of the same verdicts by what they are, such as the length-controlled win rate; may be empty."""
    return _against_opponent(evaluation, name).get("adjusted") or {}
