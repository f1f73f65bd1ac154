"""Tree attention block by block: any device and dtype, no mask of the row, no copy of keys.

Every block gives a partial output and its log-sum-exp; a query's blocks are merged by them. The backward runs each
block's kernel with the *merged* output and log-sum-exp, which gives the exact gradient of the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from inspo_hub.attention.blocks import Block, blocks_of, visible

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Scoring(NamedTuple):
    """How attention scores are made of queries and keys."""

    scale: float
    softcap: float
    """Scores are `softcap * tanh(scores / softcap)`; 0 for none."""
    window: int
    """Tokens that a query sees along its path, itself included; 0 for all."""


class Heads(NamedTuple):
    """Views with the key-value heads in front, one head size for all, and keys expanded over their group."""

    query: Float[Tensor, "kv_heads groups tokens size"]
    key: Float[Tensor, "kv_heads groups keys size"]
    value: Float[Tensor, "kv_heads groups keys size"]

    def slice(self, block: Block) -> Heads:
        q, k = slice(block.q0, block.q1), slice(block.k0, block.k1)
        return Heads(self.query[:, :, q], self.key[:, :, k], self.value[:, :, k])


def forward(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads keys size"],
    value: Float[Tensor, "1 kv_heads keys value_size"],
    plan: Int[Tensor, "blocks 5"],
    scoring: Scoring,
) -> tuple[Float[Tensor, "1 tokens heads value_size"], Float[Tensor, "heads tokens"]]:
    """Attention output and log-sum-exp of a row. Equivalent to `softmax(q @ k.mT * scale + tree_mask) @ v`.

    More keys than tokens: those of a context that was computed before stand in front.
    """
    heads = _heads(query, key, value)
    kv_heads, groups, tokens, size = heads.query.shape
    out = query.new_empty(1, tokens, kv_heads * groups, size)
    out_by_head = _by_head(out, kv_heads)
    lse = torch.empty(kv_heads, groups, tokens, dtype=_accumulator(query.dtype), device=query.device)
    for block in blocks_of(plan.tolist(), window=scoring.window, materialised=_materialised(query, scoring)):
        partial, partial_lse = _block_forward(heads.slice(block), block, scoring)
        _merge(
            out_by_head[:, :, block.q0 : block.q1], lse[:, :, block.q0 : block.q1], partial, partial_lse, block.opens
        )
    return _cut(out, value.shape[-1]), lse.flatten(0, 1)


def backward(
    grad_out: Float[Tensor, "1 tokens heads value_size"],
    saved: Saved,
    plan: Int[Tensor, "blocks 5"],
    scoring: Scoring,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the row's queries, keys and values; keys that stand in front of the row's own get none."""
    heads = _heads(saved.query, saved.key, saved.value)
    kv_heads, groups, tokens, size = heads.query.shape
    before = heads.key.shape[2] - tokens
    out, grad = (_by_head(_pad(x, size), kv_heads) for x in (saved.out, grad_out))
    lse = saved.lse.unflatten(0, (kv_heads, groups))
    dtype = _accumulator(saved.query.dtype)
    materialised = _materialised(saved.query, scoring)
    new = torch.zeros if materialised else torch.empty
    # Tokens before heads in memory, as the projections that made the three want their gradients.
    d_query = new(1, tokens, kv_heads * groups, size, dtype=dtype, device=saved.query.device)
    d_key, d_value = (new(1, tokens, kv_heads, size, dtype=dtype, device=saved.query.device) for _ in range(2))
    dq, dk, dv = _by_head(d_query, kv_heads), _by_head(d_key, kv_heads)[:, 0], _by_head(d_value, kv_heads)[:, 0]
    for block in blocks_of(plan.tolist(), window=scoring.window, materialised=materialised):
        q, k = slice(block.q0, block.q1), slice(block.k0 - before, block.k1 - before)
        merged = Merged(out[:, :, q], lse[:, :, q], grad[:, :, q])
        block_dq, block_dk, block_dv = _block_backward(heads.slice(block), merged, block, scoring)
        # Causal blocks that open are a partition of the row's queries and of its keys: they write, the others add.
        writes = block.opens and block.kind == "causal"
        parts = [(dq[:, :, q], block_dq)]
        if block.k0 >= before:
            parts.append((dk[:, k], block_dk.sum(1) if groups > 1 else block_dk[:, 0]))
            parts.append((dv[:, k], block_dv.sum(1) if groups > 1 else block_dv[:, 0]))
        for total, part in parts:
            total.copy_(part) if writes else total.add_(part)
    pairs = ((d_query, saved.query), (d_key, saved.key), (d_value, saved.value))
    d_query, d_key, d_value = (_cut(d, x.shape[-1]).to(x.dtype).transpose(1, 2) for d, x in pairs)
    return d_query, d_key, d_value


class Saved(NamedTuple):
    """What the backward needs of the forward; `out` and `lse` are those of the whole row, all blocks merged."""

    query: Float[Tensor, "1 heads tokens size"]
    key: Float[Tensor, "1 kv_heads keys size"]
    value: Float[Tensor, "1 kv_heads keys value_size"]
    out: Float[Tensor, "1 tokens heads value_size"]
    lse: Float[Tensor, "heads tokens"]


class Merged(NamedTuple):
    """A block's queries of the whole row's output, log-sum-exp and output gradient."""

    out: Float[Tensor, "kv_heads groups queries size"]
    lse: Float[Tensor, "kv_heads groups queries"]
    grad: Float[Tensor, "kv_heads groups queries size"]


def _heads(query: Tensor, key: Tensor, value: Tensor) -> Heads:
    kv_heads, groups = key.shape[1], query.shape[1] // key.shape[1]
    size = max(query.shape[-1], value.shape[-1])  # multi-head latent attention: values are narrower than keys
    grouped = _pad(query, size)[0].unflatten(0, (kv_heads, groups))
    # A group's queries share one key head: a view of stride 0, which the kernel reads as it stands.
    shared = (_pad(x, size)[0][:, None].expand(-1, groups, -1, -1) for x in (key, value))
    return Heads(grouped, *shared)


def _by_head(x: Tensor, kv_heads: int) -> Tensor:
    """A `(1, tokens, heads, size)` tensor as a `(kv_heads, groups, tokens, size)` view."""
    return x[0].unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3)


def _pad(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-1] == size else F.pad(x, (0, size - x.shape[-1]))


def _cut(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-1] == size else x[..., :size].contiguous()


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _materialised(query: Tensor, scoring: Scoring) -> bool:
    """True where torch's fused CPU kernel cannot compute the scores."""
    return query.device.type != "cpu" or scoring.softcap > 0


def _merge(out: Tensor, lse: Tensor, partial: Tensor, partial_lse: Tensor, opens: bool) -> None:
    """Add a block's partial result to what its queries hold."""
    if opens:
        out.copy_(partial)
        lse.copy_(partial_lse)
        return
    merged = torch.logaddexp(lse, partial_lse)
    kept, added = torch.exp(lse - merged)[..., None], torch.exp(partial_lse - merged)[..., None]
    if out.dtype == merged.dtype:
        out.mul_(kept).addcmul_(partial, added)
    else:
        out.copy_(out * kept + partial * added)
    lse.copy_(merged)


def _block_forward(heads: Heads, block: Block, scoring: Scoring) -> tuple[Tensor, Tensor]:
    if block.kind != "tile":
        return _flash(*heads, 0.0, block.kind == "causal", scale=scoring.scale)
    scores = _scores(heads, block, scoring)
    lse = scores.logsumexp(-1)
    # A query outside the band has no key here: its weights are 0, not 0/0.
    weights = torch.exp(scores - torch.where(lse.isneginf(), 0.0, lse)[..., None])
    return (weights @ heads.value.to(weights.dtype)).to(heads.value.dtype), lse


def _scores(heads: Heads, block: Block, scoring: Scoring) -> Tensor:
    dtype = _accumulator(heads.query.dtype)
    scores = (heads.query.to(dtype) @ heads.key.to(dtype).mT) * scoring.scale
    if scoring.softcap:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    mask = visible(block, window=scoring.window, device=scores.device)
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _block_backward(heads: Heads, merged: Merged, block: Block, scoring: Scoring) -> tuple[Tensor, Tensor, Tensor]:
    if block.kind != "tile":
        out, lse, grad = merged
        return _flash_backward(grad, *heads, out, lse, 0.0, block.kind == "causal", scale=scoring.scale)
    scores = _scores(heads, block, scoring)
    weights = torch.exp(scores - merged.lse[..., None])
    grad, out = merged.grad.to(scores.dtype), merged.out.to(scores.dtype)
    d_scores = weights * (grad @ heads.value.to(scores.dtype).mT - (grad * out).sum(-1, keepdim=True))
    if scoring.softcap:
        capped = torch.where(scores.isneginf(), 0.0, scores / scoring.softcap)
        d_scores = d_scores * (1 - capped**2)
    d_scores = d_scores * scoring.scale
    return d_scores @ heads.key.to(scores.dtype), d_scores.mT @ heads.query.to(scores.dtype), weights.mT @ grad
