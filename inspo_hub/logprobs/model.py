"""model + PackedBatch -> TreeLogps, through the model's own call so that every wrapper's hooks run."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from inspo_hub.attention import LAYOUT_ARGUMENT, AttentionSwitch, ContextKeys
from inspo_hub.logprobs.fused import PairLosses, ScoredPairs
from inspo_hub.logprobs.head import Head, find_head
from inspo_hub.logprobs.rope import RopeWatch
from inspo_hub.packing import Layout, PackedBatch, PackedContext
from inspo_hub.views import Score, TreeLogps

_STATE = "_inspo_hub_prepared"


@dataclass(kw_only=True)
class Prepared:
    """What `prepare_model` found out about a model and keeps beside it."""

    causal_lm: PreTrainedModel
    """The transformers model, adapters in place, without what PEFT wraps around it."""
    head: Head
    switch: AttentionSwitch
    rope: RopeWatch
    forward_before: Any
    """The instance's own `forward`, where something had patched it before."""


def prepare_model(model: nn.Module, *, layout: Layout = "tree") -> nn.Module:
    """Let `model(packed_batch=…)` return log-probabilities; every other call works as before, by its own attention.

    Patches the instance's `forward`: call it on the outermost module, before DDP, FSDP or DeepSpeed wrap it.

    Args:
        layout: `tree` refuses a model whose attention cannot be replaced; `flat` leaves its attention alone.
    """
    prepared = prepared_state(model)
    if prepared is None:
        causal_lm = _causal_lm(model)
        prepared = Prepared(
            causal_lm=causal_lm,
            head=find_head(causal_lm),
            switch=AttentionSwitch(causal_lm),
            rope=RopeWatch(causal_lm.config),
            forward_before=model.__dict__.get("forward"),
        )
        object.__setattr__(model, _STATE, prepared)
        model.forward = types.MethodType(_forward, model)
    if layout == "tree":
        prepared.switch.require()
    return model


def restore_model(model: nn.Module) -> nn.Module:
    """Undo `prepare_model`."""
    prepared = prepared_state(model)
    if prepared is not None:
        prepared.switch.use(tree=False)
        prepared.head.release()
        del model.forward
        if prepared.forward_before is not None:
            model.forward = prepared.forward_before
        object.__delattr__(model, _STATE)
    return model


def _causal_lm(model: nn.Module) -> PreTrainedModel:
    """The transformers model: what PEFT wraps, or the model itself."""
    wraps = getattr(model, "get_base_model", None)
    return cast(PreTrainedModel, model if wraps is None else wraps())


def prepared_state(model: nn.Module) -> Prepared | None:
    """What `prepare_model` left on a model; None for a model that is not prepared."""
    return cast("Prepared | None", model.__dict__.get(_STATE))


def tree_logps(
    model: nn.Module,
    batch: PackedBatch,
    *,
    scores: Sequence[Score] | None = None,
    no_grad_scores: Sequence[Score] = (),
) -> TreeLogps:
    """Summed log-probabilities of each pair's responses, `(pairs,)` float32, differentiable.

    Where the batch stops the gradient at the alternative, its plain scores are without gradient.

    Args:
        model: a causal language model, prepared or not, or what DDP, FSDP or DeepSpeed made of a prepared one.
        scores: which to compute, of those that the batch lays out; all of them by default.
        no_grad_scores: further scores, computed without gradient: no backward through the head for them.
    """
    if scores is None:
        scores = tuple(score for score in batch.scores if score not in no_grad_scores)
    missing = {*scores, *no_grad_scores} - set(batch.scores)
    assert not missing, f"the batch does not lay out {sorted(missing)}"
    _prepare_innermost(model, batch)
    return TreeLogps(**model(packed_batch=batch, scores=tuple(scores), no_grad_scores=tuple(no_grad_scores)))


@dataclass(frozen=True, kw_only=True)
class TreeLosses:
    """Pairs' losses, and what they were made of."""

    total: Float[Tensor, ""]
    """Sum of the losses, differentiable; its backward can run once."""
    losses: Float[Tensor, " pairs"]
    """Without gradient, as `logps`."""
    logps: TreeLogps


def tree_losses(
    model: nn.Module,
    batch: PackedBatch,
    pair_losses: PairLosses,
    *,
    scores: Sequence[Score],
    no_grad_scores: Sequence[Score] = (),
) -> TreeLosses:
    """Losses of pairs, each of its pair's log-probabilities alone, with the head's gradients computed in the forward.

    Equivalent to `logps = tree_logps(model, batch, scores=…); pair_losses(logps, slice(None)).sum()`, for three
    quarters of the head's work. An objective that couples pairs cannot be computed so.

    Args:
        pair_losses: called with the log-probabilities of a run of pairs and the slice of the batch that they are.
        scores, no_grad_scores: as in `tree_logps`; `pair_losses` gets `scores`.
    """
    _prepare_innermost(model, batch)
    outputs = dict(
        model(
            packed_batch=batch,
            scores=tuple(scores),
            no_grad_scores=tuple(no_grad_scores),
            pair_losses=pair_losses,
        )
    )
    total, losses = outputs.pop("total"), outputs.pop("losses")
    return TreeLosses(total=total, losses=losses, logps=TreeLogps(**outputs))


def _prepare_innermost(model: nn.Module, batch: PackedBatch) -> None:
    """Prepare what DDP, FSDP or DeepSpeed wrap, or the model itself, where that was not done."""
    innermost = model
    while isinstance(wrapped := getattr(innermost, "module", None), nn.Module):
        innermost = wrapped
    if prepared_state(innermost) is None:
        prepare_model(innermost, layout="flat" if batch.layout is None else "tree")


def _forward(
    self: nn.Module,
    *args: Any,
    packed_batch: PackedBatch | None = None,
    scores: Sequence[Score] = (),
    no_grad_scores: Sequence[Score] = (),
    pair_losses: PairLosses | None = None,
    **kwargs: Any,
) -> Any:
    """The prepared model's forward: log-probabilities of a packed batch, or whatever it did before."""
    prepared = prepared_state(self)
    assert prepared is not None
    if packed_batch is None:
        with prepared.switch.using(tree=False):
            before = prepared.forward_before or types.MethodType(type(self).forward, self)
            return before(*args, **kwargs)
    passes = _passes(prepared, packed_batch)
    trained = tuple(score for score in scores if score not in packed_batch.untrained)
    if pair_losses is None:
        logps = _score(prepared.head, passes.hidden, packed_batch, trained)
    else:
        assert trained == tuple(scores), f"{packed_batch.untrained} are read without gradient: no loss is made of them"
        logps = _losses(prepared.head, passes.hidden, packed_batch, trained, pair_losses)
    without = tuple(score for score in (*scores, *no_grad_scores) if score not in trained)
    with torch.no_grad():
        for hidden, is_context in ((passes.hidden.detach(), False), (passes.context, True)):
            here = tuple(score for score in without if (score in packed_batch.untrained) == is_context)
            if here and hidden is not None:
                logps |= _score(prepared.head, hidden, packed_batch, here)
    return logps


@dataclass(frozen=True, kw_only=True)
class _Passes:
    """The decoder's last hidden states of all rows, row after row."""

    hidden: Float[Tensor, "tokens hidden"]
    context: Float[Tensor, "context hidden"] | None
    """Of the row that is read without gradient, where the batch has one."""


def _passes(prepared: Prepared, batch: PackedBatch) -> _Passes:
    """Runs the decoder over the context, where that is a row of its own, and over the batch's rows."""
    # Not undone afterwards: gradient checkpointing runs the layers again in the backward.
    prepared.switch.use(tree=batch.layout is not None)
    prepared.rope.look(batch)
    if batch.layout is None:
        return _Passes(hidden=_flat_hidden(prepared, batch), context=None)
    layout, context = batch.layout, None
    if batch.context is not None:
        keys = ContextKeys(batch.context.stopped)
        context = _context_pass(prepared, batch.context, keys)
        layout = replace(layout, reads=keys)
    inputs = {"position_ids": batch.position_ids, LAYOUT_ARGUMENT: layout}
    hidden = prepared.head.body(input_ids=batch.input_ids, use_cache=False, **inputs)[0]
    return _Passes(hidden=hidden.flatten(0, 1), context=context)


def _flat_hidden(prepared: Prepared, batch: PackedBatch) -> Float[Tensor, "tokens hidden"]:
    """Hidden states of every rectangle, by a call each.

    Without a mask: padding stands to the right, where a causal model does not look, and a mask has columns × columns.
    """
    sizes = [rows * columns for rows, columns in batch.rectangles]
    parts = zip(batch.input_ids[0].split(sizes), batch.rectangles, strict=True)
    hidden = [prepared.head.body(input_ids=ids.view(shape), use_cache=False)[0] for ids, shape in parts]
    return torch.cat([states.flatten(0, 1) for states in hidden])


@torch.no_grad()
def _context_pass(prepared: Prepared, context: PackedContext, keys: ContextKeys) -> Float[Tensor, "tokens hidden"]:
    """Hidden states of the context; every layer leaves its keys and values in `keys`."""
    inputs = {"position_ids": context.position_ids, LAYOUT_ARGUMENT: replace(context.layout, writes=keys)}
    return prepared.head.body(input_ids=context.input_ids, use_cache=False, **inputs)[0].flatten(0, 1)


def _score(head: Head, hidden: Tensor, batch: PackedBatch, scores: tuple[Score, ...]) -> dict[str, Tensor]:
    """Each score's summed log-probabilities; all scores' tokens go through the head together."""
    if not scores:
        return {}
    scored = [batch.scored[score] for score in scores]
    rows = hidden.index_select(0, torch.cat([tokens.positions for tokens in scored]))
    logps = head.token_logps(rows, torch.cat([tokens.targets for tokens in scored]))
    by_pair = _sum_by_pair(logps, torch.cat([tokens.lengths for tokens in scored]))
    # Copies, not views: a sharding engine's hook on a view would be lost by an operation in place.
    return {score: values.clone() for score, values in zip(scores, by_pair.split(batch.pairs), strict=True)}


def _losses(
    head: Head, hidden: Tensor, batch: PackedBatch, scores: tuple[Score, ...], pair_losses: PairLosses
) -> dict[str, Tensor]:
    """The summed loss, the losses and each score."""
    if head.transform is None:
        by_score = _score(head, hidden, batch, scores)
        losses = pair_losses(TreeLogps(**by_score), slice(0, batch.pairs))
        detached = {score: values.detach() for score, values in by_score.items()}
        return {"total": losses.sum(), "losses": losses.detach(), **detached}
    what = ScoredPairs(batch=batch, scores=scores, pair_losses=pair_losses, transform=head.transform)
    total, losses, logps = head.fused(hidden, what)
    return {"total": total, "losses": losses, **{score: logps[row].clone() for row, score in enumerate(scores)}}


def _sum_by_pair(logps: Float[Tensor, " tokens"], lengths: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Sums of runs of the given lengths, added up in float64: a long response's float32 sum would lose 1e-4 nats."""
    # unsafe: checking that the lengths add up would wait for the device.
    sums = torch.segment_reduce(logps.double(), "sum", lengths=lengths, unsafe=True)
    return sums.to(logps.dtype)
