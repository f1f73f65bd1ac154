"""Fills the reference scores of a variant's pairs: from the cache, or by one pass dealt over the processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch.distributed as dist
from accelerate import PartialState
from torch import nn

from inspo_hub.packing import Layout
from inspo_hub.pairs import PairSet
from inspo_hub.reference import ReferenceCache, ReferenceIdentity, ReferenceScores
from inspo_hub.training.job import VariantJob
from inspo_hub.training.scoring import RowScorer
from inspo_hub.views import SCORES, Score

log = logging.getLogger(__name__)

MakeScorer = Callable[[nn.Module, PairSet], RowScorer]


def reference_values(
    job: VariantJob,
    model: nn.Module,
    *,
    layout: Layout,
    make_scorer: MakeScorer,
) -> tuple[dict[Score, np.ndarray], dict[Score, np.ndarray]]:
    """Reference log-probabilities of the training and the held-out pairs, float64 `(rows,)` per score.

    Training pairs get what the conditioning needs, and both plain scores for the metrics; held-out pairs get all four
    with `reference.context: conditioned` and the plain ones otherwise. Both empty where the objective has no reference.

    Args:
        model: the reference, on its device, prepared for packed batches.
        layout: packing layout the model is scored with.
        make_scorer: scorer of a model over a set of pairs.
    """
    recipe = job.recipe
    if not recipe.objective.uses_reference:
        return {}, {}
    context = recipe.reference.context
    plain: tuple[Score, ...] = ("chosen", "rejected")
    needed = {*recipe.conditioning.reference_scores(context), *plain}
    train_scores = tuple(score for score in SCORES if score in needed)
    heldout_scores = SCORES if context == "conditioned" else plain
    train = _fill(job, model, job.train, train_scores, layout=layout, make_scorer=make_scorer)
    if job.heldout is None:
        return train, {}
    return train, _fill(job, model, job.heldout, heldout_scores, layout=layout, make_scorer=make_scorer)


def _fill(
    job: VariantJob,
    model: nn.Module,
    pairs: PairSet,
    scores: tuple[Score, ...],
    *,
    layout: Layout,
    make_scorer: MakeScorer,
) -> dict[Score, np.ndarray]:
    state, scorer = PartialState(), make_scorer(model, pairs)
    dtype = str(scorer.compute_dtype).removeprefix("torch.")
    identity = ReferenceIdentity(
        description=job.reference_name,
        weights=job.reference_weights,
        compute_dtype=dtype,
        layout=layout,
        device_kind=scorer.device.type,
    )
    reference = ReferenceScores(pairs, scores, contexts=job.contexts, cache=ReferenceCache(identity, job.cache))
    # Everybody has read before anybody writes: all processes see the same rows as missing.
    state.wait_for_everyone()
    missing = _broadcast(reference.missing_rows())
    mine = missing[state.process_index :: state.num_processes]
    log.info("reference: %d rows, %d of them cached", len(pairs), len(pairs) - len(missing))
    reference.fill(mine, scorer)
    for rows, values in _all_gather((mine, {score: reference.values[score][mine] for score in scores})):
        reference.merge(rows, values)
    worst = reference.verify(scorer, compute_dtype=dtype)
    log.info("reference: %s, re-scored rows agree to %.2g nats per token", job.reference_name, worst)
    return reference.values


def _all_gather(value: Any) -> list[Any]:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _broadcast(value: Any) -> Any:
    """The first process's value, on every process."""
    return _all_gather(value)[0]
