"""Fills the reference scores of a variant's pairs: from the cache, or by one pass dealt over the processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch.distributed as dist
from accelerate import PartialState
from torch import nn

from inspo_hub.adapters import adapter_off
from inspo_hub.packing import Layout
from inspo_hub.pairs import PairSet
from inspo_hub.reference import ReferenceCache, ReferenceIdentity, ReferenceScores
from inspo_hub.training.job import VariantJob
from inspo_hub.training.progress import duration
from inspo_hub.training.scoring import RowScorer
from inspo_hub.views import SCORES, Score

log = logging.getLogger(__name__)

TELL_EVERY_S = 30.0
"""Seconds between two lines about a pass that takes long."""
MakeScorer = Callable[[nn.Module, PairSet], RowScorer]


def reference_values(
    job: VariantJob,
    model: nn.Module,
    *,
    layout: Layout,
    make_scorer: MakeScorer,
    form: str = "",
) -> tuple[dict[Score, np.ndarray], dict[Score, np.ndarray]]:
    """Reference log-probabilities of the training and the held-out pairs, float64 `(rows,)` per score.

    Training pairs get what the conditioning needs, and both plain scores for the metrics; held-out pairs get all four
    with `reference.context: conditioned` and the plain ones otherwise. Both empty where the objective has no reference.

    Args:
        model: the reference, on its device, prepared for packed batches; with the adapter that is trained, where it is
            the initial policy: a new one is off while the reference scores.
        layout: packing layout the model is scored with.
        make_scorer: scorer of a model over a set of pairs.
        form: how the reference's weights are held where that is not float32.
    """
    recipe = job.recipe
    if not recipe.objective.uses_reference:
        return {}, {}
    context = recipe.reference.context
    plain: tuple[Score, ...] = ("chosen", "rejected")
    needed = {*recipe.conditioning.reference_scores(context), *plain}
    train_scores = tuple(score for score in SCORES if score in needed)
    heldout_scores = SCORES if context == "conditioned" else plain
    fill = partial(_fill, job, model, layout=layout, make_scorer=make_scorer, form=form)
    train = fill(job.train, train_scores)
    if job.heldout is None:
        return train, {}
    return train, fill(job.heldout, heldout_scores)


def _fill(
    job: VariantJob,
    model: nn.Module,
    pairs: PairSet,
    scores: tuple[Score, ...],
    *,
    layout: Layout,
    make_scorer: MakeScorer,
    form: str,
) -> dict[Score, np.ndarray]:
    state, scorer = PartialState(), make_scorer(model, pairs)
    dtype = str(scorer.compute_dtype).removeprefix("torch.")
    identity = ReferenceIdentity(
        description=job.reference_name,
        weights=f"{job.reference_weights} {form}".rstrip(),
        compute_dtype=dtype,
        layout=layout,
        device_kind=scorer.device.type,
    )
    reference = ReferenceScores(pairs, scores, contexts=job.contexts, cache=ReferenceCache(identity, job.cache))
    # Everybody has read before anybody writes: all processes see the same rows as missing.
    state.wait_for_everyone()
    missing = set(_broadcast(reference.missing_rows()))
    needed = [members for members in scorer.micro_batches() if missing.intersection(members)]
    # Every process runs as many forwards, for they may be collective: one with nothing left repeats another's.
    rounds = -(-len(needed) // state.num_processes)
    mine = [needed[(turn * state.num_processes + state.process_index) % len(needed)] for turn in range(rounds)]
    purpose = "training" if pairs is job.train else "held out"
    log.info("reference: %d rows, %d of them cached (%s)", len(pairs), len(pairs) - len(missing), purpose)
    is_new_adapter = job.recipe.adapter is not None and job.adapter_path is None
    # Another model as the reference has no adapter: nothing to switch off.
    with adapter_off(model) if is_new_adapter else nullcontext():
        reference.fill(_told(mine), scorer)
        rows = [row for members in mine for row in members]
        reference.merge(_all_gather((rows, {score: reference.values[score][rows] for score in scores})))
        worst = reference.verify(scorer, compute_dtype=dtype)
    if is_new_adapter and job.reference_path is None:
        reference.verify_start(scorer, compute_dtype=dtype)
    log.info("reference: %s, re-scored rows agree to %.2g nats per token", job.reference_name, worst)
    return reference.values


def _told(micro_batches: Sequence[list[int]]) -> Iterator[list[int]]:
    """The micro-batches in turn; from time to time a line says how far the pass is."""
    started = told = time.monotonic()
    for done, members in enumerate(micro_batches):
        now = time.monotonic()
        if done and now - told >= TELL_EVERY_S:
            told = now
            share = done / len(micro_batches)
            log.info("reference: %.0f%% scored, %s left", 100 * share, duration((now - started) * (1 / share - 1)))
        yield members


def _all_gather(value: Any) -> list[Any]:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _broadcast(value: Any) -> Any:
    """The first process's value, on every process."""
    return _all_gather(value)[0]
