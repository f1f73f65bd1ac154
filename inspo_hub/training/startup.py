"""Before the first step: whether the data's paths fit the model, and how it is packed, decided on a few pairs."""

from __future__ import annotations

import logging

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from inspo_hub.errors import RecipeError
from inspo_hub.logprobs import TOLERANCE, PackingCheck, check_packing
from inspo_hub.models import compute_dtype
from inspo_hub.packing import Layout
from inspo_hub.pairs import PairSet
from inspo_hub.training.engine import shares_weights
from inspo_hub.training.job import VariantJob
from inspo_hub.training.packer import laid_out_scores
from inspo_hub.views import SCORES, Score

log = logging.getLogger(__name__)

CHECKED_PAIRS = 3


def check_positions(job: VariantJob, model: nn.Module) -> None:
    """Paths that are longer than the model has positions: a warning, or the end where positions are rows of a table.

    Raises:
        RecipeError: the model has no such positions at all.
    """
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    window = getattr(config, "max_position_embeddings", None)
    if window is None:
        return
    longest = longest_path(job, job.train, laid_out_scores(job.recipe))
    what, then = f"paths of up to {longest} tokens", f"set data.max_length={window}"
    if longest <= window and job.heldout is not None:
        # Held-out pairs are read with their alternative, whatever is trained.
        longest = longest_path(job, job.heldout, SCORES)
        what, then = f"held-out paths of up to {longest} tokens", "their conditioned metrics say little there"
    if longest <= window:
        return
    what = f"{what}, and the model has {window} positions"
    if getattr(config, "rope_parameters", None):
        log.warning("%s: %s: %s", job.name, what, then)
        return
    raise RecipeError(
        what,
        where="data.max_length",
        expected=f"at most {window} tokens, of held-out pairs with their alternative as well",
        fix=f"lower data.max_length, now {job.recipe.data.max_length}, or choose a model with a longer context",
    )


def longest_path(job: VariantJob, pairs: PairSet, scores: tuple[Score, ...]) -> int:
    """Tokens of the longest path that these scores take through any of the pairs."""
    prompt, chosen, rejected = pairs.lengths.T
    ends = np.maximum(chosen, rejected)
    if any("given" in score for score in scores):
        cap = job.recipe.alternative.max_tokens
        limit = pairs.max_alternative if cap is None else np.minimum(pairs.max_alternative, cap)
        both_ways = np.maximum(np.minimum(rejected, limit) + chosen, np.minimum(chosen, limit) + rejected)
        ends = both_ways + len(job.separator)
    return int((prompt + ends).max())


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
