"""Log-probabilities of given tokens from hidden states, chunk by chunk: no (tokens, vocab) tensor ever exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**29}
"""Size of one chunk's logits in float32. The weight's gradient is read and written once per chunk, so a chunk needs
rows enough to outweigh that: at 32k tokens of vocabulary 64 MiB are 1.15 times as fast as 16 MiB on one CPU core."""


@dataclass(frozen=True, kw_only=True)
class HeadTransform:
    """What an architecture does to its logits: `cap * tanh(scale * logits / cap)`."""

    scale: float = 1.0
    softcap: float = 0.0
    """0 for no cap."""

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits * self.scale
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How a chunk is computed: products in `compute`, everything else in `accumulate`."""

    transform: HeadTransform
    compute: torch.dtype
    rows: int

    @staticmethod
    def of(hidden: Tensor, weight: Tensor, transform: HeadTransform, chunk_bytes: int | None = None) -> Arithmetic:
        """Autocast's dtype where it is on, and as many rows as a chunk may have."""
        kind = hidden.device.type
        compute = torch.promote_types(hidden.dtype, weight.dtype)
        if torch.is_autocast_enabled(kind) and compute != torch.float64:
            compute = torch.get_autocast_dtype(kind)
        budget = chunk_bytes or CHUNK_BYTES.get(kind, CHUNK_BYTES["cuda"])
        return Arithmetic(transform=transform, compute=compute, rows=max(1, budget // (4 * weight.shape[0])))

    @property
    def accumulate(self) -> torch.dtype:
        return torch.float64 if self.compute == torch.float64 else torch.float32

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """`a @ b` in the accumulating dtype, unrounded where the device can."""
        if a.is_cuda and a.dtype in (torch.bfloat16, torch.float16):
            return torch.mm(a, b, out_dtype=torch.float32)
        return (a @ b).to(self.accumulate)

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A chunk's logits, transformed; a new tensor that the caller may overwrite."""
        logits = self.product(hidden, weight.mT)
        if bias is not None:
            logits += bias.to(logits.dtype)
        if self.transform.scale != 1.0:
            logits *= self.transform.scale
        if self.transform.softcap:
            logits = logits.div_(self.transform.softcap).tanh_().mul_(self.transform.softcap)
        return logits


def token_logps(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    targets: Int[Tensor, " tokens"],
    *,
    transform: HeadTransform,
    chunk_bytes: int | None = None,
) -> Float[Tensor, " tokens"]:
    """Equivalent to `transform(hidden @ weight.mT + bias).log_softmax(-1).gather(-1, targets[:, None])[:, 0]`.

    float32 (float64 for float64 models); the logits of a chunk are computed again in the backward, and the gradient of
    the weight is accumulated in float32.
    """
    arithmetic = Arithmetic.of(hidden, weight, transform, chunk_bytes)
    return _TokenLogps.apply(hidden, weight, bias, targets, arithmetic)


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, arithmetic: Arithmetic
    ) -> Tensor:
        logps = torch.empty(len(targets), dtype=arithmetic.accumulate, device=hidden.device)
        normaliser = torch.empty_like(logps)
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight.to(arithmetic.compute)
            for first in range(0, len(targets), arithmetic.rows):
                chunk = slice(first, first + arithmetic.rows)
                logits = arithmetic.logits(hidden[chunk].to(arithmetic.compute), head, bias)
                picked = logits.gather(1, targets[chunk, None])[:, 0]
                normaliser[chunk] = logits.logsumexp(1)
                logps[chunk] = picked - normaliser[chunk]
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        ctx.arithmetic = arithmetic
        return logps

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        arithmetic: Arithmetic = ctx.arithmetic
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight, dtype=arithmetic.accumulate) if wants_weight else None
        d_bias = torch.zeros_like(bias, dtype=arithmetic.accumulate) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight.to(arithmetic.compute)
            for first in range(0, len(targets), arithmetic.rows):
                chunk = slice(first, first + arithmetic.rows)
                rows = hidden[chunk].to(arithmetic.compute)
                logits = arithmetic.logits(rows, head, bias)
                d_logits = logits_gradient(
                    logits, targets[chunk], normaliser[chunk], grad_outputs[0][chunk], arithmetic
                )
                if d_bias is not None:
                    d_bias += d_logits.sum(0)
                d_logits = d_logits.to(arithmetic.compute)
                if d_hidden is not None:
                    d_hidden[chunk] = d_logits @ head
                if d_weight is not None:
                    add_product(d_weight, d_logits.mT, rows, arithmetic)
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
            None,
        )


def logits_gradient(
    logits: Tensor, targets: Tensor, normaliser: Tensor, grad: Tensor, arithmetic: Arithmetic
) -> Float[Tensor, "tokens vocab"]:
    """Gradient of Σ grad · logps with respect to the untransformed logits; overwrites `logits`."""
    transform = arithmetic.transform
    slope = 1 - (logits / transform.softcap) ** 2 if transform.softcap else None
    d_logits = logits.sub_(normaliser[:, None]).exp_().mul_(-grad[:, None])
    d_logits.scatter_add_(1, targets[:, None], grad[:, None].to(d_logits.dtype))
    if slope is not None:
        d_logits *= slope
    if transform.scale != 1.0:
        d_logits *= transform.scale
    return d_logits


def add_product(total: Tensor, a: Tensor, b: Tensor, arithmetic: Arithmetic) -> None:
    """`total += a @ b`, in place and without a product of its own where dtypes allow."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += arithmetic.product(a, b)
