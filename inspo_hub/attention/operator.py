"""Tree attention as one torch operator: a compiled graph serves every layout, and checkpointing recomputes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from inspo_hub.attention import backends, blockwise, varlen
from inspo_hub.attention.backends import AttentionShape
from inspo_hub.attention.blockwise import Saved, Scoring
from inspo_hub.attention.context import LayerContext
from inspo_hub.attention.layout import KeyGather, TreeLayout

# Spelled out: reading them from annotations fails where a type checker wraps the functions.
_FORWARD = (
    "(Tensor query, Tensor key, Tensor value, Tensor? sinks, Tensor[] context, "
    "Tensor plan, Tensor[] gather, float scale, float softcap, int window) -> (Tensor, Tensor)"
)


@torch.library.custom_op("inspo_hub::tree_attention", mutates_args=(), schema=_FORWARD)
def tree_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    context: Sequence[Tensor],
    plan: Tensor,
    gather: Sequence[Tensor],
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor]:
    scoring = Scoring(scale, softcap, window)
    kernel = backends.kernel_for(AttentionShape.of(query, key, value, scoring))
    key, value = _after_context(key, value, context)
    with torch.autocast(query.device.type, enabled=False):
        if kernel is None:
            out, lse = blockwise.forward(query, key, value, plan, scoring)
        else:
            out, lse = varlen.forward(query, key, value, KeyGather.of(gather), scoring, kernel)
    if sinks is None:
        return out, lse
    # A sink is a key with no value: it takes weight from the others and adds nothing.
    with_sink = torch.logaddexp(lse, sinks.to(lse.dtype)[:, None])
    out = (out * torch.exp(lse - with_sink).T[None, ..., None]).to(out.dtype)
    return out, with_sink


@tree_attention_op.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    context: Sequence[Tensor],
    plan: Tensor,
    gather: Sequence[Tensor],
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor]:
    _, heads, tokens, _ = query.shape
    lse_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(1, tokens, heads, value.shape[-1]), query.new_empty(heads, tokens, dtype=lse_dtype)


_BACKWARD = (
    "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse, Tensor[] context, "
    "Tensor plan, Tensor[] gather, float scale, float softcap, int window) -> (Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("inspo_hub::tree_attention_backward", mutates_args=(), schema=_BACKWARD)
def tree_attention_backward_op(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    context: Sequence[Tensor],
    plan: Tensor,
    gather: Sequence[Tensor],
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    scoring = Scoring(scale, softcap, window)
    kernel = backends.kernel_for(AttentionShape.of(query, key, value, scoring))
    saved = Saved(query, *_after_context(key, value, context), out, lse)
    with torch.autocast(query.device.type, enabled=False):
        if kernel is None:
            grads = blockwise.backward(grad_out, saved, plan, scoring)
        else:
            grads = varlen.backward(grad_out, saved, KeyGather.of(gather), scoring, kernel)
    for gradient in grads[1:] if context else ():
        gradient.index_fill_(2, context[2], 0)
    return grads


@tree_attention_backward_op.register_fake
def _(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    context: Sequence[Tensor],
    plan: Tensor,
    gather: Sequence[Tensor],
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    # Tokens before heads in memory, as the projections that made the three want their gradients.
    shapes = (query.transpose(1, 2).shape, key.transpose(1, 2).shape, value.transpose(1, 2).shape)
    return tuple(query.new_empty(shape).transpose(1, 2) for shape in shapes)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, sinks, context, plan, gather, *ctx.scoring = inputs
    out, lse = output
    ctx.gathers, ctx.contexts = len(gather), len(context)
    ctx.save_for_backward(query, key, value, sinks, plan, out, lse, *context, *gather)
    ctx.mark_non_differentiable(lse)


def _backward(ctx: Any, grad_out: Tensor, _grad_lse: Tensor) -> tuple[Any, ...]:
    query, key, value, sinks, plan, out, lse, *lists = ctx.saved_tensors
    context, gather = lists[: ctx.contexts], lists[ctx.contexts :]
    grads = torch.ops.inspo_hub.tree_attention_backward(
        grad_out.contiguous(), query, key, value, out, lse, context, plan, gather, *ctx.scoring
    )
    grad_sinks = None
    if sinks is not None and ctx.needs_input_grad[3]:
        weight = torch.exp(sinks.to(lse.dtype)[:, None] - lse)
        agreement = (grad_out.to(lse.dtype) * out.to(lse.dtype)).sum(-1)[0].T
        grad_sinks = -(weight * agreement).sum(-1).to(sinks.dtype)
    return (*grads, grad_sinks, [None] * ctx.contexts, None, [None] * ctx.gathers, None, None, None)


tree_attention_op.register_autograd(_backward, setup_context=_setup_context)


def tree_attention(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads tokens size"],
    value: Float[Tensor, "1 kv_heads tokens value_size"],
    *,
    layout: TreeLayout,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
    sinks: Float[Tensor, " heads"] | None = None,
    context: LayerContext | None = None,
) -> Float[Tensor, "1 tokens heads value_size"]:
    """Attention of a packed row over each token's own path, with gradients.

    Equivalent to `softmax(q @ k.mT * scale + tree_mask) @ v` with the mask of the layout, which is never built; a
    `context` stands in front of k and v, detached as its `stopped` tokens are. What computes it is `backends`' to say.
    """
    query, key, value = in_compute_dtype(query, key, value)
    scoring = Scoring(scale, softcap, window)
    if query.is_cuda and backends.backend_for(AttentionShape.of(query, key, value, scoring)) == "flex":
        from inspo_hub.attention import flex

        return flex.forward(query, *_detached(key, value, context), sinks, layout, scoring)
    out, _ = torch.ops.inspo_hub.tree_attention(
        query, key, value, sinks, list(context or ()), layout.plan, layout.gather_tensors(), *scoring
    )
    return out


def in_compute_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's precision where it is on: rotary embedding leaves queries and keys in float32, values are not."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind) or tensors[0].dtype == torch.float64:
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(kind)) for x in tensors)


def _after_context(key: Tensor, value: Tensor, context: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The row's keys and values after those of its context. A copy: beside the layer's products it costs nothing."""
    if not context:
        return key, value
    return torch.cat([context[0], key], dim=2), torch.cat([context[1], value], dim=2)


def _detached(key: Tensor, value: Tensor, context: LayerContext | None) -> tuple[Tensor, Tensor]:
    """`_after_context` for a function with autograd of its own: what belongs to the context is detached."""
    if context is None:
        return key, value
    own = torch.ones(key.shape[2], dtype=torch.bool, device=key.device)
    own[context.stopped] = False
    own = own[None, None, :, None]
    key, value = (torch.where(own, x, x.detach()) for x in (key, value))
    return _after_context(key, value, context)
