"""Losses of pairs with the head's gradients computed in the forward: three matrix products instead of four.

The gradient of a token's log-probability needs its pair's loss, which needs all tokens of the pair. So pairs go through
the head in groups whose logits fit one chunk: logits, losses of the group, the losses' gradient, and the gradients of
hidden states and weight, while the logits are still there. A pair whose logits do not fit is computed again, as
`chunks.token_logps` does for every token. Only for losses of each pair alone; one that couples pairs needs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inspo_hub.logprobs.chunks import Arithmetic, HeadTransform, add_product, logits_gradient
from inspo_hub.packing import PackedBatch, ScoredTokens
from inspo_hub.views import Score, TreeLogps

PairLosses = Callable[[TreeLogps, slice], Float[Tensor, " pairs"]]
"""Log-probabilities of some pairs, and which of the batch's pairs they are -> the loss of each, unreduced."""


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """What the fused head scores, and how losses are made of it."""

    batch: PackedBatch
    scores: tuple[Score, ...]
    pair_losses: PairLosses
    transform: HeadTransform

    def groups(self, rows: int) -> Iterator[_Group]:
        """Runs of pairs with at most `rows` scored tokens together, or one pair with more."""
        scored = [self.batch.scored[score] for score in self.scores]
        counts = [sum(parts) for parts in zip(*(tokens.counts for tokens in scored), strict=True)]
        starts = [[0, *accumulate(tokens.counts)] for tokens in scored]
        first = 0
        while first < len(counts):
            last, total = first + 1, counts[first]
            while last < len(counts) and total + counts[last] <= rows:
                total += counts[last]
                last += 1
            yield _Group.of(slice(first, last), scored, starts)
            first = last


@dataclass(frozen=True, kw_only=True)
class _Group:
    pairs: slice
    positions: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    lengths: Int[Tensor, " segments"]
    """Scored tokens of each score's pairs, score by score."""

    @staticmethod
    def of(pairs: slice, scored: Sequence[ScoredTokens], starts: Sequence[Sequence[int]]) -> _Group:
        spans = [slice(start[pairs.start], start[pairs.stop]) for start in starts]
        return _Group(
            pairs=pairs,
            positions=torch.cat([tokens.positions[span] for tokens, span in zip(scored, spans, strict=True)]),
            targets=torch.cat([tokens.targets[span] for tokens, span in zip(scored, spans, strict=True)]),
            lengths=torch.cat([tokens.lengths[pairs] for tokens in scored]),
        )


def loss_and_logps(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    *,
    what: ScoredPairs,
    chunk_bytes: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " pairs"], Float[Tensor, "scores pairs"]]:
    """The pairs' summed loss with gradients of hidden states, weight and bias; losses and log-probabilities without.

    Equivalent to `losses = pair_losses(logps(hidden), slice(None)); (losses.sum(), losses.detach(), logps.detach())`.
    """
    arithmetic = Arithmetic.of(hidden, weight, what.transform, chunk_bytes)
    # Inside a Function gradients are off whatever they are outside.
    return _FusedLoss.apply(hidden, weight, bias, what, arithmetic, torch.is_grad_enabled())


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        what: ScoredPairs,
        arithmetic: Arithmetic,
        training: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        pairs = what.batch.pairs
        losses = torch.zeros(pairs, dtype=arithmetic.accumulate, device=hidden.device)
        logps = torch.zeros(len(what.scores), pairs, dtype=arithmetic.accumulate, device=hidden.device)
        wanted = [training and wants for wants in ctx.needs_input_grad[:3]]
        gradients = _Gradients.zeros(hidden, weight, bias, wanted=wanted, arithmetic=arithmetic)
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight.to(arithmetic.compute)
            for group in what.groups(arithmetic.rows):
                _score_group(group, what, (hidden, head, bias), gradients, losses, logps, arithmetic)
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        ctx.dtypes, ctx.spent = (hidden.dtype, weight.dtype), False
        ctx.mark_non_differentiable(losses, logps)
        return losses.sum(), losses, logps

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        assert not ctx.spent, "the gradients of a fused loss can be had once: they are scaled in place"
        ctx.spent = True
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        dtypes = (ctx.dtypes[0], ctx.dtypes[1], ctx.dtypes[1])
        grads = [
            None if gradient is None else gradient.mul_(grad_outputs[0]).to(dtype)
            for gradient, dtype in zip((d_hidden, d_weight, d_bias), dtypes, strict=True)
        ]
        return (*grads, None, None, None)


@dataclass(frozen=True, kw_only=True)
class _Gradients:
    """Gradients of the summed loss, filled group by group; None for what needs none."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @staticmethod
    def zeros(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, *, wanted: Sequence[bool], arithmetic: Arithmetic
    ) -> _Gradients:
        dtype = arithmetic.accumulate
        made = [
            torch.zeros_like(x, dtype=dtype) if x is not None and wants else None
            for x, wants in zip((hidden, weight, bias), wanted, strict=True)
        ]
        return _Gradients(hidden=made[0], weight=made[1], bias=made[2])

    @property
    def any(self) -> bool:
        return any(x is not None for x in (self.hidden, self.weight, self.bias))


def _score_group(
    group: _Group,
    what: ScoredPairs,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    gradients: _Gradients,
    losses: Tensor,
    logps: Tensor,
    arithmetic: Arithmetic,
) -> None:
    """Write a group's losses and log-probabilities, and add its gradients."""
    hidden, head, bias = inputs
    rows = hidden.index_select(0, group.positions).to(arithmetic.compute)
    chunks = [slice(first, first + arithmetic.rows) for first in range(0, len(rows), arithmetic.rows)]
    normaliser = torch.empty(len(rows), dtype=arithmetic.accumulate, device=rows.device)
    token_logps = torch.empty_like(normaliser)
    logits = torch.empty(0)
    for chunk in chunks:
        logits = arithmetic.logits(rows[chunk], head, bias)
        normaliser[chunk] = logits.logsumexp(1)
        token_logps[chunk] = logits.gather(1, group.targets[chunk, None])[:, 0] - normaliser[chunk]
    sums = torch.segment_reduce(token_logps.double(), "sum", lengths=group.lengths, unsafe=True)
    by_score = sums.to(token_logps.dtype).unflatten(0, (len(what.scores), -1))
    logps[:, group.pairs] = by_score
    losses[group.pairs], slopes = _losses_and_slopes(what, by_score, group.pairs, wanted=gradients.any)
    if slopes is None:
        return
    slope = slopes.flatten().repeat_interleave(group.lengths, output_size=len(rows))
    for chunk in chunks:
        if len(chunks) > 1:  # too many rows to keep their logits
            logits = arithmetic.logits(rows[chunk], head, bias)
        d_logits = logits_gradient(logits, group.targets[chunk], normaliser[chunk], slope[chunk], arithmetic)
        _add_gradients(gradients, d_logits, group.positions[chunk], rows[chunk], head, arithmetic)


def _losses_and_slopes(
    what: ScoredPairs, by_score: Float[Tensor, "scores pairs"], pairs: slice, *, wanted: bool
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, "scores pairs"] | None]:
    """Each pair's loss, and its derivative by each of the pair's log-probabilities."""
    with torch.set_grad_enabled(wanted):
        leaves = by_score.detach().requires_grad_(wanted)
        losses = what.pair_losses(TreeLogps(**dict(zip(what.scores, leaves.unbind(), strict=True))), pairs)
        slopes = torch.autograd.grad(losses.sum(), leaves)[0] if wanted else None
    return losses.detach().to(by_score.dtype), slopes


def _add_gradients(
    gradients: _Gradients,
    d_logits: Float[Tensor, "tokens vocab"],
    positions: Int[Tensor, " tokens"],
    rows: Float[Tensor, "tokens hidden"],
    head: Float[Tensor, "vocab hidden"],
    arithmetic: Arithmetic,
) -> None:
    if gradients.bias is not None:
        gradients.bias.add_(d_logits.sum(0))
    d_logits = d_logits.to(arithmetic.compute)
    if gradients.hidden is not None:
        gradients.hidden.index_add_(0, positions, (d_logits @ head).to(gradients.hidden.dtype))
    if gradients.weight is not None:
        add_product(gradients.weight, d_logits.mT, rows, arithmetic)
