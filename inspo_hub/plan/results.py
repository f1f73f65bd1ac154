"""The numbers of a plan, as `estimate` returns them and `--json` prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inspo_hub.errors import RecipeError
from inspo_hub.plan.facts import DataFacts, ModelFacts
from inspo_hub.plan.machines import MachineEstimate
from inspo_hub.plan.memory import Engine
from inspo_hub.plan.variants import ReferencePass
from inspo_hub.recipe.shipped import shipped_folder

TIMEOUT_MARGIN, TIMEOUT_EXTRA_S = 1.5, 900.0
"""A Job's time limit is the estimate with this margin: speeds are assumed."""


class OverBudget(RecipeError):
    """The run is expected to cost more than it may."""

    def __init__(self, machine: MachineEstimate, limit: float) -> None:
        assert machine.usd is not None
        assert machine.hours is not None
        self.facts = {
            "usd": machine.usd,
            "max_usd": limit,
            "hours": machine.hours.total,
            "flavor": machine.flavour.name,
            "usd_per_hour": machine.flavour.usd_per_hour,
        }
        super().__init__(
            f"the run is expected to cost ${machine.usd:.2f}: {machine.hours.total:.2f} hours on "
            f"{machine.flavour.name} at ${machine.flavour.usd_per_hour:.2f}",
            where="--max-usd",
            expected=f"at most ${limit:.2f}",
            fix="set a higher --max-usd, train.max_steps, fewer rows (data.train.0.limit), or train an adapter: {}",
        )

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **self.facts}


@dataclass(frozen=True, kw_only=True)
class VariantEstimate:
    """What one variant's training does, whatever the machine; micro-batches at the recipe's own token budget."""

    name: str
    objective: str
    conditioning: str
    layout: str
    trained_parameters: int
    steps: int
    pairs: int
    tokens: int
    tokens_per_step: float
    processes: int
    tokens_per_microbatch: int
    micro_batches: int
    """Of one process in the whole training; every process runs as many."""
    largest_micro_batch: int
    longest_pair: int
    flops: float
    """Forward and backward of all steps, without recomputation."""
    evaluations: int
    checkpoints: int


@dataclass(frozen=True, kw_only=True)
class ConditioningEstimate:
    """A pair under one conditioning, on the rows that were looked at."""

    name: str
    mean_tokens: float
    tokens: Mapping[str, int]
    """Percentile -> tokens that a pair lays out; `max` too."""
    longest_path: Mapping[str, int]
    """Percentile -> tokens of a pair's longest path, after the overlong policy."""
    flops_per_pair: float
    overlong: int
    rows: int
    taken: Mapping[str, int]
    """Tokens that truncating takes from the rows that were looked at."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A plan's numbers for one recipe."""

    model: ModelFacts
    data: DataFacts
    variants: Sequence[VariantEstimate]
    conditionings: Sequence[ConditioningEstimate]
    passes: Sequence[ReferencePass]
    memory: Mapping[int, Mapping[Engine, float]]
    """GPUs -> engine -> bytes of one device at the recipe's own token budget; None where an engine has no meaning."""
    disk_bytes: float
    machines: Sequence[MachineEstimate]
    here: MachineEstimate | None
    """This machine, where its speed was measured."""
    chosen: MachineEstimate | None
    """The flavour that was asked for, or the one that `auto` picks; None where none fits."""
    prices: str

    @property
    def timeout_minutes(self) -> int | None:
        """A time limit for the chosen machine: what is expected, with a margin."""
        if self.chosen is None or self.chosen.hours is None:
            return None
        return math.ceil((self.chosen.hours.total * 3600 * TIMEOUT_MARGIN + TIMEOUT_EXTRA_S) / 60)

    @property
    def settings(self) -> list[str]:
        """`--set` texts for the chosen machine; they change how it computes, and nothing of the result."""
        setting = self.chosen.setting if self.chosen else None
        if setting is None:
            return []
        return [
            f"train.tokens_per_microbatch={setting.tokens_per_microbatch}",
            f"train.activation_checkpointing={str(setting.checkpointing).lower()}",
        ]

    @property
    def launch(self) -> str | None:
        """How several GPUs are started with the shipped profile of the chosen engine; None for one device."""
        setting = self.chosen.setting if self.chosen else None
        if setting is None or setting.devices == 1:
            return None
        profile = shipped_folder() / "accelerate" / f"{setting.engine}.yaml"
        config = f"--config_file {profile} " if profile.is_file() else ""
        return f"accelerate launch {config}--num_processes {setting.devices} -m inspo_hub.run RECIPE"

    def require_at_most(self, usd: float) -> None:
        """Raises OverBudget where the chosen machine is expected to cost more."""
        if self.chosen is not None and self.chosen.usd is not None and self.chosen.usd > usd:
            raise OverBudget(self.chosen, usd)

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self.data)
        for name in ("rows", "heldout_rows", "by_conditioning"):
            data.pop(name)
        model = asdict(self.model)
        model.pop("matrices")
        return {
            "model": model,
            "data": data,
            "variants": {each.name: asdict(each) for each in self.variants},
            "conditionings": {each.name: asdict(each) for each in self.conditionings},
            "reference_passes": [asdict(each) for each in self.passes],
            "memory_bytes": {str(gpus): dict(row) for gpus, row in self.memory.items()},
            "disk_bytes": self.disk_bytes,
            "machines": {each.flavour.name: each.to_dict() for each in self.machines},
            "here": self.here.to_dict() if self.here else None,
            "chosen": self.chosen.to_dict() if self.chosen else None,
            "timeout_minutes": self.timeout_minutes,
            "settings": self.settings,
            "launch": self.launch,
            "prices": self.prices,
        }
