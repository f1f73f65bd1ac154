"""Out of memory, said in numbers: what did not fit, and what to set."""

from __future__ import annotations

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
    advice = [f"set train.tokens_per_microbatch={max(longest, budget // 2)} (same losses, more micro-batches)"]
    if recipe.train.activation_checkpointing is False:
        advice.append("train.activation_checkpointing=true (about a third more time)")
    if longest > budget // 2:
        advice.append(f"data.max_length below {recipe.data.max_length}")
    return TrainingError(
        f"the GPU ran out of memory on a micro-batch of up to {largest} tokens: {str(error).splitlines()[0]}",
        where="train.tokens_per_microbatch",
        expected=f"a budget that fits; now {budget} tokens, the longest pair takes {longest}",
        fix=", or ".join(advice),
    )
