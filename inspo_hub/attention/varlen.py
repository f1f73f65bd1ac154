"""Tree attention by a variable-length kernel: each segment's keys gathered side by side, one launch for the row.

A segment's queries are contiguous and its keys, once gathered, end with the segment itself; so plain causal masking
aligned bottom-right is the tree's mask, and a kernel's sliding window measures distance along the path.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from inspo_hub.attention.blockwise import Saved, Scoring
from inspo_hub.attention.layout import KeyGather

Packed = Float[Tensor, "tokens heads size"]


class Bounds(NamedTuple):
    """Cumulative lengths on the device, longest lengths on the host."""

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int


@runtime_checkable
class Kernel(Protocol):
    """A variable-length attention kernel without autograd of its own; sizes of query, key and value are equal."""

    def forward(
        self, query: Packed, key: Packed, value: Packed, bounds: Bounds, scoring: Scoring
    ) -> tuple[Packed, Float[Tensor, "heads tokens"]]:
        """Output and log-sum-exp."""

    def backward(self, grad_out: Packed, saved: PackedSaved, bounds: Bounds, scoring: Scoring) -> tuple[Packed, ...]:
        """Gradients of query, key and value, computed with the given output and log-sum-exp."""


class PackedSaved(NamedTuple):
    query: Packed
    key: Packed
    value: Packed
    out: Packed
    lse: Float[Tensor, "heads tokens"]


class TorchFlash:
    """torch's own flash-attention kernel, the one behind `torch.nn.attention.varlen.varlen_attn`.

    Called below its autograd, because a backward with sinks needs a log-sum-exp that is not the kernel's.
    """

    def forward(
        self, query: Packed, key: Packed, value: Packed, bounds: Bounds, scoring: Scoring
    ) -> tuple[Packed, Float[Tensor, "heads tokens"]]:
        out, lse, *_ = torch.ops.aten._flash_attention_forward(
            query, key, value, *bounds, 0.0, not scoring.window, False, **_window(scoring), scale=scoring.scale
        )
        return out, lse

    def backward(self, grad_out: Packed, saved: PackedSaved, bounds: Bounds, scoring: Scoring) -> tuple[Packed, ...]:
        # Without dropout the kernel reads neither of the two.
        random_state = torch.zeros(2, dtype=torch.uint64, device=grad_out.device)
        unused = torch.empty(0, device=grad_out.device)
        return torch.ops.aten._flash_attention_backward(
            grad_out,
            *saved,
            *bounds,
            0.0,
            not scoring.window,
            random_state,
            unused,
            **_window(scoring),
            scale=scoring.scale,
        )


class FlashAttnPackage:
    """The `flash_attn` package's kernel, the variable-length one that has soft-capping."""

    def forward(
        self, query: Packed, key: Packed, value: Packed, bounds: Bounds, scoring: Scoring
    ) -> tuple[Packed, Float[Tensor, "heads tokens"]]:
        from flash_attn.flash_attn_interface import _flash_attn_varlen_forward

        out, lse, *_ = _flash_attn_varlen_forward(
            query,
            key,
            value,
            *bounds,
            dropout_p=0.0,
            softmax_scale=scoring.scale,
            causal=True,
            **_window(scoring),
            softcap=scoring.softcap,
        )
        return out, lse

    def backward(self, grad_out: Packed, saved: PackedSaved, bounds: Bounds, scoring: Scoring) -> tuple[Packed, ...]:
        from flash_attn.flash_attn_interface import _flash_attn_varlen_backward

        grads = tuple(torch.empty_like(x) for x in saved[:3])
        _flash_attn_varlen_backward(
            grad_out,
            *saved,
            *grads,
            *bounds,
            dropout_p=0.0,
            softmax_scale=scoring.scale,
            causal=True,
            **_window(scoring),
            softcap=scoring.softcap,
            alibi_slopes=None,
            deterministic=False,
        )
        return grads


def _window(scoring: Scoring) -> dict[str, int]:
    return {"window_size_left": scoring.window - 1, "window_size_right": 0}  # window 0: -1, no limit


def forward(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads keys size"],
    value: Float[Tensor, "1 kv_heads keys value_size"],
    gather: KeyGather,
    scoring: Scoring,
    kernel: Kernel,
) -> tuple[Float[Tensor, "1 tokens heads value_size"], Float[Tensor, "heads tokens"]]:
    """Attention output and log-sum-exp of a row, as `blockwise.forward`."""
    size = _kernel_size(query, value)
    q, k, v = _packed(query, size), _packed(key, size), _packed(value, size)
    k, v = k.index_select(0, gather.key_index), v.index_select(0, gather.key_index)
    out, lse = kernel.forward(q, k, v, _bounds(gather), scoring)
    return out[None, ..., : value.shape[-1]].contiguous(), lse


def backward(
    grad_out: Float[Tensor, "1 tokens heads value_size"],
    saved: Saved,
    gather: KeyGather,
    scoring: Scoring,
    kernel: Kernel,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `blockwise.backward`. The keys are gathered again: keeping them would cost more."""
    size = _kernel_size(saved.query, saved.value)
    q, k, v = _packed(saved.query, size), _packed(saved.key, size), _packed(saved.value, size)
    k, v = k.index_select(0, gather.key_index), v.index_select(0, gather.key_index)
    out, grad = _pad(saved.out[0], size), _pad(grad_out[0], size)
    packed = PackedSaved(q, k, v, out.contiguous(), saved.lse)
    d_query, d_key, d_value = kernel.backward(grad.contiguous(), packed, _bounds(gather), scoring)
    return (
        _unpacked(d_query, saved.query.shape[-1]),
        _unpacked(_sum_over_paths(d_key, gather), saved.key.shape[-1]),
        _unpacked(_sum_over_paths(d_value, gather), saved.value.shape[-1]),
    )


def _sum_over_paths(gathered: Float[Tensor, "keys heads size"], gather: KeyGather) -> Packed:
    """A row token's gradient is the sum over the segments that see it; within a level no token is added to twice."""
    total = gathered.index_select(0, gather.own_index)
    bounds = gather.repeat_bounds.tolist()
    for start, stop in itertools.pairwise(bounds):
        level = slice(start, stop)
        total.index_add_(0, gather.repeat_row[level], gathered.index_select(0, gather.repeat_key[level]))
    return total


def _bounds(gather: KeyGather) -> Bounds:
    longest_queries, longest_keys = gather.longest.tolist()
    return Bounds(gather.query_bounds, gather.key_bounds, longest_queries, longest_keys)


def _kernel_size(query: Tensor, value: Tensor) -> int:
    """One head size for all three, a multiple of 8 as flash kernels want it."""
    return -(-max(query.shape[-1], value.shape[-1]) // 8) * 8


def _packed(x: Float[Tensor, "1 heads tokens size"], size: int) -> Float[Tensor, "tokens heads padded"]:
    return _pad(x[0].transpose(0, 1), size).contiguous()


def _unpacked(x: Float[Tensor, "tokens heads padded"], size: int) -> Float[Tensor, "1 heads tokens size"]:
    return x[None, ..., :size].contiguous().transpose(1, 2)


def _pad(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-1] == size else F.pad(x, (0, size - x.shape[-1]))
