"""Before the first step: whether the data's paths fit the model, and how it is packed, decided on a few pairs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from inspo_hub.errors import RecipeError
from inspo_hub.logprobs import (
    TOLERANCE,
    ModelKernels,
    PackingCheck,
    check_packing,
    has_choice,
    layers_by_shape,
    measure_kernels,
)
from inspo_hub.models import compute_dtype
from inspo_hub.pairs import PairSet
from inspo_hub.training.engine import shares_weights
from inspo_hub.training.job import VariantJob
from inspo_hub.training.packer import Packer, laid_out_scores
from inspo_hub.training.processes import on_first_process
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


def choose_packing(job: VariantJob, model: nn.Module) -> PackingCheck:
    """How the recipe packs; `auto` is decided by the start-up check.

    Raises:
        RecipeError: the recipe insists on a tree, or on gradients that stop in one, and the model cannot be packed so.
    """
    wanted = job.recipe.model.attention
    if wanted == "flat":
        return PackingCheck(layout="flat", max_abs_difference=0.0, reason="the recipe says so")
    check = startup_check(job, model)
    stops = job.recipe.alternative.gradient == "stopped"
    if check.layout != "tree" and (stops or wanted == "tree"):
        raise RecipeError(
            f"this model cannot be packed as a tree: {check.reason}",
            where="alternative.gradient" if stops else "model.attention",
            expected="equal log-probabilities, packed and plain",
            fix="set alternative.gradient: full" if stops else "set model.attention: auto or flat",
        )
    return check


def choose_kernels(
    job: VariantJob, model: nn.Module, check: PackingCheck, packer: Packer, *, dtype: torch.dtype
) -> dict[str, Any] | None:
    """Measures the kernels that can compute the prepared model on this device, and takes the fastest that agree.

    The first process measures for all: kernels differ in the last bits, and all processes are to have the same.

    Returns:
        What was measured and chosen; None where there was no choice.
    """
    device = PartialState().device
    layers = layers_by_shape(check.attention, dtype)
    if not has_choice(layers, device):
        return None

    def measure() -> ModelKernels:
        scores = laid_out_scores(job.recipe)
        rows = fitting_rows(packer.tokens(job.train, scores), packer.tokens_per_microbatch)
        batch = packer.pack(job.train, rows, scores, alternative_gradient=job.recipe.alternative.gradient)
        return measure_kernels(model, layers, batch.layout, device=device, folder=job.cache / "kernels")

    kernels = on_first_process(measure)
    kernels.use(device)
    log.info("%s: %s", job.name, kernels)
    return kernels.to_json()


def fitting_rows(tokens: np.ndarray, budget: int) -> list[int]:
    """The first rows that fill a micro-batch; one at least."""
    return list(range(max(1, int((np.cumsum(tokens) <= budget).sum()))))
