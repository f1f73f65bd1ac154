"""Tree attention as one torch operator: a compiled graph serves every layout, and checkpointing recomputes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from inspo_hub.attention import blockwise, varlen
from inspo_hub.attention.blockwise import Saved, Scoring
from inspo_hub.attention.layout import KeyGather, TreeLayout

# Spelled out: reading them from annotations fails where a type checker wraps the functions.
_FORWARD = (
    "(Tensor query, Tensor key, Tensor value, Tensor? sinks, "
    "Tensor plan, Tensor[] gather, float scale, float softcap, int window) -> (Tensor, Tensor)"
)


@torch.library.custom_op("inspo_hub::tree_attention", mutates_args=(), schema=_FORWARD)
def tree_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    plan: Tensor,
    gather: Sequence[Tensor],
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor]:
    scoring = Scoring(scale, softcap, window)
    kernel = varlen.kernel_for(query, value, scoring)
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
    "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse, "
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
    plan: Tensor,
    gather: Sequence[Tensor],
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    saved = Saved(query, key, value, out, lse)
    scoring = Scoring(scale, softcap, window)
    kernel = varlen.kernel_for(query, value, scoring)
    with torch.autocast(query.device.type, enabled=False):
        if kernel is None:
            return blockwise.backward(grad_out, saved, plan, scoring)
        return varlen.backward(grad_out, saved, KeyGather.of(gather), scoring, kernel)


@tree_attention_backward_op.register_fake
def _(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
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
    query, key, value, sinks, plan, gather, *ctx.scoring = inputs
    out, lse = output
    ctx.has_sinks = sinks is not None
    ctx.gathers = len(gather)
    ctx.save_for_backward(query, key, value, sinks, plan, out, lse, *gather)
    ctx.mark_non_differentiable(lse)


def _backward(ctx: Any, grad_out: Tensor, _grad_lse: Tensor) -> tuple[Any, ...]:
    query, key, value, sinks, plan, out, lse, *gather = ctx.saved_tensors
    grads = torch.ops.inspo_hub.tree_attention_backward(
        grad_out.contiguous(), query, key, value, out, lse, plan, gather, *ctx.scoring
    )
    grad_sinks = None
    if sinks is not None and ctx.needs_input_grad[3]:
        weight = torch.exp(sinks.to(lse.dtype)[:, None] - lse)
        agreement = (grad_out.to(lse.dtype) * out.to(lse.dtype)).sum(-1)[0].T
        grad_sinks = -(weight * agreement).sum(-1).to(sinks.dtype)
    return (*grads, grad_sinks, None, [None] * ctx.gathers, None, None, None)


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
) -> Float[Tensor, "1 tokens heads value_size"]:
    """Attention of a packed row over each token's own path, with gradients.

    Equivalent to `softmax(q @ k.mT * scale + tree_mask) @ v` with the mask of the layout, which is never built. On a
    GPU in half precision a variable-length flash kernel computes it, or flex_attention where that has no soft-capping;
    everywhere else blocks of torch's CPU kernel or of plain torch.
    """
    kind = query.device.type
    if torch.is_autocast_enabled(kind) and query.dtype != torch.float64:
        # Rotary embedding leaves queries and keys in float32 and values in the lower precision.
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    scoring = Scoring(scale, softcap, window)
    if query.is_cuda and softcap and query.dtype.itemsize == 2 and varlen.kernel_for(query, value, scoring) is None:
        from inspo_hub.attention import flex

        return flex.forward(query, key, value, sinks, layout, scoring)
    out, _ = torch.ops.inspo_hub.tree_attention(
        query, key, value, sinks, layout.plan, layout.gather_tensors(), *scoring
    )
    return out
