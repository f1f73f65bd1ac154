"""Before the first step: how this model is packed, decided on a few pairs of the run's own data."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from inspo_hub.errors import RecipeError
from inspo_hub.logprobs import TOLERANCE, PackingCheck, check_packing
from inspo_hub.models import compute_dtype
from inspo_hub.packing import Layout
from inspo_hub.training.engine import shares_weights
from inspo_hub.training.job import VariantJob

CHECKED_PAIRS = 3


def startup_check(job: VariantJob, model: nn.Module) -> PackingCheck:
    """Packed against plain forwards on the shortest pairs of the data.

    Raises:
        TrainingError: the model's scores differ however it is packed.
    """
    bfloat16 = compute_dtype(job.recipe.model.compute_dtype, PartialState().device) == torch.bfloat16
    shortest = np.argsort(job.train.lengths.sum(axis=1), kind="stable")[:CHECKED_PAIRS]
    return check_packing(
        model,
        [job.train[int(row)] for row in shortest],
        separator=job.separator,
        max_alternative_tokens=job.recipe.alternative.max_tokens,
        alternative_gradient=job.recipe.alternative.gradient,
        # Shared-out weights are gathered in bfloat16; whole ones are checked in float32.
        tolerance=TOLERANCE[torch.bfloat16] if bfloat16 and shares_weights() else None,
    )


def packing_layout(job: VariantJob, model: nn.Module) -> Layout:
    """The recipe's packing layout; `auto` is decided by the start-up check.

    Raises:
        RecipeError: the recipe insists on a tree, or on gradients that stop in one, and the model cannot be packed so.
    """
    wanted = job.recipe.model.attention
    if wanted == "flat":
        return "flat"
    check = startup_check(job, model)
    stops = job.recipe.alternative.gradient == "stopped"
    if check.layout != "tree" and (stops or wanted == "tree"):
        raise RecipeError(
            f"this model cannot be packed as a tree: {check.reason}",
            where="alternative.gradient" if stops else "model.attention",
            expected="equal log-probabilities, packed and plain",
            fix="set alternative.gradient: full" if stops else "set model.attention: auto or flat",
        )
    return check.layout
