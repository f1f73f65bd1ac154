"""Log-probabilities of given tokens from hidden states, chunk by chunk: no (tokens, vocab) tensor ever exists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inspo_hub.logprobs.softmax import softmax_for

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**29}
"""Size of one chunk's logits in float32. The weight's gradient is read and written once per chunk, so a chunk needs
rows enough to outweigh that: at 128k tokens of vocabulary 64 MiB are 1.5 times as fast as 16 MiB on one CPU core."""
_MOST_ROWS = 1024
"""More rows win nothing, and a smaller buffer stays in the cache."""


@dataclass(frozen=True, kw_only=True)
class HeadTransform:
    """What an architecture does to its logits: `cap * tanh(scale * logits / cap)`."""

    scale: float = 1.0
    softcap: float = 0.0
    """0 for no cap."""

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits * self.scale
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits


def compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """What the head's products are computed in: autocast's dtype where it is on, the model's otherwise."""
    kind = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and dtype != torch.float64 else dtype


def chunk_rows(weight: Tensor, chunk_bytes: int) -> int:
    """Rows of a chunk whose float32 logits have at most so many bytes."""
    return max(1, chunk_bytes // (4 * weight.shape[0]))


class HeadChunks:
    """The head's arithmetic on chunks of rows; one buffer holds each chunk's logits in turn.

    A new buffer per chunk would cost as much as the product that fills it: fresh pages are mapped one by one.
    Everything but the products is in float32 (float64 for float64 models).
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, transform: HeadTransform, dtype: torch.dtype, rows: int
    ) -> None:
        self.weight, self.bias = weight.to(dtype), bias
        self.transform, self.dtype, self.rows = transform, dtype, rows
        self.accumulate = torch.float64 if dtype == torch.float64 else torch.float32
        self._buffer: Tensor | None = None

    def chunks(self, tokens: int) -> Iterator[slice]:
        for first in range(0, tokens, self.rows):
            yield slice(first, min(tokens, first + self.rows))

    def score(
        self, hidden: Float[Tensor, "tokens hidden"], targets: Int[Tensor, " tokens"], *, slopes: bool = False
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens vocab"]]:
        """Log-probabilities of the targets, and, with `slopes`, what the method of that name returns."""
        logits, cap_slope = self._logits(hidden, slopes=slopes)
        logps = softmax_for(logits).logps(logits, targets, slopes=slopes)
        return logps, logits if cap_slope is None else logits.mul_(cap_slope)

    def slopes(
        self, hidden: Float[Tensor, "tokens hidden"], targets: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "tokens vocab"]:
        """Derivatives of -log p(target) by the scaled logits, in a buffer that the next call overwrites."""
        logits, cap_slope = self._logits(hidden, slopes=True)
        softmax_for(logits).slopes(logits, targets)
        return logits if cap_slope is None else logits.mul_(cap_slope)

    def _logits(self, hidden: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor | None]:
        """Transformed logits in the buffer, and the derivative of the soft-cap at each, where there is one."""
        logits = self._product_into_buffer(hidden.to(self.dtype))
        if self.bias is not None:
            logits += self.bias.to(logits.dtype)
        if self.transform.scale != 1.0:
            logits *= self.transform.scale
        cap = self.transform.softcap
        if not cap:
            return logits, None
        logits.div_(cap).tanh_()
        cap_slope = 1 - logits**2 if slopes else None
        return logits.mul_(cap), cap_slope

    def _product_into_buffer(self, hidden: Tensor) -> Tensor:
        if hidden.is_cuda and self.dtype.itemsize == 2:
            return torch.mm(hidden, self.weight.mT, out_dtype=torch.float32)  # unrounded; memory comes from a pool
        if self._buffer is None or len(self._buffer) < len(hidden):
            self._buffer = torch.empty(len(hidden), len(self.weight), dtype=self.accumulate, device=hidden.device)
        buffer = self._buffer[: len(hidden)]
        if self.dtype == self.accumulate:
            return torch.mm(hidden, self.weight.mT, out=buffer)
        return buffer.copy_(hidden @ self.weight.mT)

    def add_gradients(
        self, d_logits: Float[Tensor, "tokens vocab"], rows: ScoredRows, gradients: HeadGradients
    ) -> Float[Tensor, "tokens hidden"] | None:
        """Add a chunk's weight and bias gradients, and return its hidden gradient.

        Args:
            d_logits: the derivatives that `slopes` gives.
        """
        # d logp / d logits is minus this; the row's factor goes to the narrow side of each product.
        factor = rows.grad * -self.transform.scale
        if gradients.bias is not None:
            gradients.bias.addmv_(d_logits.mT, factor.to(d_logits.dtype))
        d_logits, factor = d_logits.to(self.dtype), factor[:, None]
        if gradients.weight is not None:
            _add_product(gradients.weight, d_logits.mT, (rows.hidden * factor).to(self.dtype))
        return (d_logits @ self.weight) * factor if gradients.wants_hidden else None


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """A chunk's hidden states, the tokens they predict, and the gradient of each log-probability."""

    hidden: Float[Tensor, "tokens hidden"]
    targets: Int[Tensor, " tokens"]
    grad: Float[Tensor, " tokens"]


@dataclass(frozen=True, kw_only=True)
class HeadGradients:
    """The head's gradients, added up in float32; None for what needs none."""

    weight: Float[Tensor, "vocab hidden"] | None
    bias: Float[Tensor, " vocab"] | None
    wants_hidden: bool

    @staticmethod
    def zeros(
        weight: Tensor, bias: Tensor | None, *, wanted: tuple[bool, bool, bool], dtype: torch.dtype
    ) -> HeadGradients:
        """`wanted`: whether hidden states, weight and bias need a gradient."""
        wants_hidden, wants_weight, wants_bias = wanted
        return HeadGradients(
            weight=torch.zeros_like(weight, dtype=dtype) if wants_weight else None,
            bias=torch.zeros_like(bias, dtype=dtype) if bias is not None and wants_bias else None,
            wants_hidden=wants_hidden,
        )

    @property
    def any(self) -> bool:
        return self.wants_hidden or self.weight is not None or self.bias is not None


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
    budget = chunk_bytes or CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])
    rows = chunk_rows(weight, budget)
    how = {
        "transform": transform,
        "dtype": compute_dtype(hidden, weight),
        "rows": min(rows, _MOST_ROWS) if hidden.device.type == "cpu" else rows,
    }
    return _TokenLogps.apply(hidden, weight, bias, targets, how)


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, how: dict[str, Any]
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.how = how
        with torch.autocast(hidden.device.type, enabled=False):
            head = HeadChunks(weight, bias, **how)
            logps = torch.empty(len(targets), dtype=head.accumulate, device=hidden.device)
            for chunk in head.chunks(len(targets)):
                logps[chunk], _ = head.score(hidden[chunk], targets[chunk])
        return logps

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            head = HeadChunks(weight, bias, **ctx.how)
            gradients = HeadGradients.zeros(weight, bias, wanted=ctx.needs_input_grad[:3], dtype=head.accumulate)
            d_hidden = torch.empty_like(hidden) if gradients.wants_hidden else None
            for chunk in head.chunks(len(targets)):
                rows = ScoredRows(hidden=hidden[chunk], targets=targets[chunk], grad=grad_outputs[0][chunk])
                d_logits = head.slopes(rows.hidden, rows.targets)
                d_rows = head.add_gradients(d_logits, rows, gradients)
                if d_hidden is not None and d_rows is not None:
                    d_hidden[chunk] = d_rows
        return d_hidden, _as(gradients.weight, weight), _as(gradients.bias, bias), None, None


def _as(gradient: Tensor | None, parameter: Tensor | None) -> Tensor | None:
    return None if gradient is None or parameter is None else gradient.to(parameter.dtype)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b`, in place where dtypes allow, unrounded where the device can."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        total += torch.mm(a, b, out_dtype=total.dtype)
    else:
        total += a @ b
