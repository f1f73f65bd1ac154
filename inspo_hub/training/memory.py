"""Out of memory, said in numbers: what did not fit, and what to set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from inspo_hub.errors import TrainingError

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.steps import StepDataset


def out_of_memory(recipe: Recipe, dataset: StepDataset, error: BaseException) -> TrainingError:
    """The error that tells which micro-batch was too large and which recipe keys make it smaller."""
    largest = dataset.largest_micro_batch().batch.tokens
    budget = recipe.train.tokens_per_microbatch
    longest = int(dataset.tokens.max())
    smaller = max(longest, budget // 2)
    advice = []
    if smaller < budget:
        now, then = (_micro_batches(dataset, size) for size in (budget, smaller))
        advice.append(
            f"set train.tokens_per_microbatch={smaller} (the same losses; {then} micro-batches in a step instead of "
            f"{now}, activations of {smaller / max(largest, smaller):.0%})"
        )
    if recipe.train.activation_checkpointing is False:
        advice.append("train.activation_checkpointing=true (the same losses, about a third more time)")
    elif not recipe.train.activation_offload:
        advice.append("train.activation_offload=true (the same losses, two copies of each layer's input)")
    if recipe.train.optimizer.startswith("adamw_torch"):
        advice.append("train.optimizer=adamw_8bit (2 bytes of state for each parameter instead of 8; other roundings)")
    if longest > budget // 2:
        advice.append(f"data.max_length below {recipe.data.max_length}")
    return TrainingError(
        f"the GPU ran out of memory on a micro-batch of up to {largest} tokens: {str(error).splitlines()[0]}",
        where="train.tokens_per_microbatch",
        expected=f"a budget that fits; now {budget} tokens, the longest pair takes {longest}",
        fix=", or ".join(advice),
    )


def _micro_batches(dataset: StepDataset, budget: int) -> int:
    """Micro-batches of the first step on the process that has most of them, under another budget."""
    return max(len(share) for share in replace(dataset, tokens_per_microbatch=budget).shares(0))
