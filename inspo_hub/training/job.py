"""What one variant's training needs, all of it already on this machine and checked, and what its results depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.reference import Contexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.pairs import DataReport, PairSet
    from inspo_hub.plan import Plan
    from inspo_hub.recipe import Recipe

CHECKPOINTS = "checkpoints"
"""The folder of an output that holds them."""

# Recipe keys that change neither the weights nor the logged metrics, and those whose content is compared itself.
FREE_KEYS = (
    "name",
    "description",
    "root",
    "variants",
    "sweep",
    "evaluate",
    "publish",
    "model.id",
    "model.revision",
    "model.tokenizer",
    "model.tokenizer_revision",
    "model.chat_template",
    "adapter.base_adapter",
    "adapter.base_adapter_revision",
    "data.train",
    "data.heldout",
    "reference.id",
    "reference.revision",
    "train.save_every",
    "train.keep_checkpoints",
    "train.report_to",
    "train.tokens_per_microbatch",
    "train.activation_checkpointing",
    "train.activation_offload",
    "train.compile",
)


@dataclass(frozen=True, kw_only=True)
class VariantJob:
    """One variant of a recipe, ready to train."""

    name: str
    recipe: Recipe
    plan: Plan
    output: Path
    model_path: Path
    weights: str
    """Content identity of the initial policy's weights: the model's, and the base adapter's where there is one."""
    adapter_path: Path | None
    """The adapter that training starts from; None for a new one, or for the whole model."""
    reference_path: Path | None
    """The reference model where it is not the initial policy."""
    reference_weights: str
    reference_name: str
    tokenizer: PreTrainedTokenizerBase
    train: PairSet
    heldout: PairSet | None
    separator: tuple[int, ...]
    data_fingerprint: str
    data_report: DataReport
    prompts_path: Path | None
    """The evaluation's prompts, on this machine."""
    judge_path: Path | None
    """The model that judges, where that is one on this machine."""
    cache: Path
    """Folder of the reference cache, shared by all runs of this user."""
    resume: str = "auto"

    @property
    def checkpoints(self) -> Path:
        return self.output / CHECKPOINTS

    @property
    def contexts(self) -> Contexts:
        return Contexts(separator=self.separator, max_alternative_tokens=self.recipe.alternative.max_tokens)

    def training_key(self) -> dict[str, Any]:
        """What weights and metrics depend on, by dotted key: resuming needs the same."""
        contents = {"pairs": self.data_fingerprint, "model": self.weights, "reference": self.reference_weights}
        return {**recipe_key(self.recipe), **{f"{CONTENT}{name}": value for name, value in contents.items()}}


CONTENT = "content of "
"""Starts the keys of a training that are no recipe's."""


def recipe_key(recipe: Recipe) -> dict[str, Any]:
    """The recipe's part of `training_key`."""
    flat = _flatten(recipe.model_dump(mode="json"))
    return {name: value for name, value in flat.items() if not any(_below(name, free) for free in FREE_KEYS)}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{name}" if prefix else name))
    return flat


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def changed_keys(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`key: before -> now` for every key that differs."""
    return [
        f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
