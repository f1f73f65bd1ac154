"""Losses of pairs with the head's gradients computed in the forward: three matrix products instead of four.

The gradient of a token's log-probability needs its pair's loss, which needs all tokens of the pair. So pairs go through
the head in groups whose logits fit `KEPT_BYTES`: logits, losses of the group, their gradient, and the gradients of
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

from inspo_hub.logprobs.chunks import (
    HeadChunks,
    HeadGradients,
    HeadTransform,
    ScoredRows,
    chunk_rows,
    compute_dtype,
)
from inspo_hub.packing import PackedBatch, ScoredTokens
from inspo_hub.views import Score, TreeLogps

KEPT_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Size of the float32 logits that are kept from a group's scores to its gradients."""

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
    kept_bytes: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " pairs"], Float[Tensor, "scores pairs"]]:
    """The pairs' summed loss with gradients of hidden states, weight and bias; losses and log-probabilities without.

    Equivalent to `losses = pair_losses(logps(hidden), slice(None)); (losses.sum(), losses.detach(), logps.detach())`.
    """
    kept = kept_bytes or KEPT_BYTES.get(weight.device.type, KEPT_BYTES["cuda"])
    how = {
        "transform": what.transform,
        "dtype": compute_dtype(hidden, weight),
        "rows": chunk_rows(weight, kept),
        # Inside a Function gradients are off whatever they are outside.
        "training": torch.is_grad_enabled(),
    }
    return _FusedLoss.apply(hidden, weight, bias, what, how)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, what: ScoredPairs, how: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        training = how.pop("training")
        wanted = tuple(training and wants for wants in ctx.needs_input_grad[:3])
        with torch.autocast(hidden.device.type, enabled=False):
            head = HeadChunks(weight, bias, **how)
            gradients = HeadGradients.zeros(weight, bias, wanted=wanted, dtype=head.accumulate)
            sums = _Sums.zeros(hidden, what, head.accumulate, wants_hidden=gradients.wants_hidden)
            for group in what.groups(head.rows):
                _score_group(group, what, head, gradients, sums)
        ctx.save_for_backward(sums.d_hidden, gradients.weight, gradients.bias)
        ctx.dtypes, ctx.spent = (hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype), False
        ctx.mark_non_differentiable(sums.losses, sums.logps)
        return sums.losses.sum(), sums.losses, sums.logps

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        assert not ctx.spent, "the gradients of a fused loss can be had once: they are scaled in place"
        ctx.spent = True
        grads = [
            None if gradient is None else gradient.mul_(grad_outputs[0]).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*grads, None, None)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What the groups fill: the gradient of all hidden states, and each pair's loss and log-probabilities."""

    d_hidden: Tensor | None
    losses: Tensor
    logps: Tensor
    hidden: Tensor

    @staticmethod
    def zeros(hidden: Tensor, what: ScoredPairs, dtype: torch.dtype, *, wants_hidden: bool) -> _Sums:
        pairs = what.batch.pairs
        return _Sums(
            d_hidden=torch.zeros_like(hidden, dtype=dtype) if wants_hidden else None,
            losses=torch.zeros(pairs, dtype=dtype, device=hidden.device),
            logps=torch.zeros(len(what.scores), pairs, dtype=dtype, device=hidden.device),
            hidden=hidden,
        )


def _score_group(group: _Group, what: ScoredPairs, head: HeadChunks, gradients: HeadGradients, sums: _Sums) -> None:
    """Write a group's losses and log-probabilities, and add its gradients."""
    rows = sums.hidden.index_select(0, group.positions)
    chunks = list(head.chunks(len(rows)))
    token_logps = torch.empty(len(rows), dtype=head.accumulate, device=rows.device)
    for chunk in chunks:
        slopes = gradients.any and len(chunks) == 1
        token_logps[chunk], d_logits = head.score(rows[chunk], group.targets[chunk], slopes=slopes)
    by_score = torch.segment_reduce(token_logps.double(), "sum", lengths=group.lengths, unsafe=True)
    by_score = by_score.to(head.accumulate).unflatten(0, (len(what.scores), -1))
    sums.logps[:, group.pairs] = by_score
    sums.losses[group.pairs], by_logp = _losses_and_slopes(what, by_score, group.pairs, wanted=gradients.any)
    if by_logp is None:
        return
    grad = by_logp.flatten().repeat_interleave(group.lengths, output_size=len(rows))
    for chunk in chunks:
        if len(chunks) > 1:  # too many rows to keep their logits
            d_logits = head.slopes(rows[chunk], group.targets[chunk])
        scored = ScoredRows(hidden=rows[chunk], targets=group.targets[chunk], grad=grad[chunk])
        d_rows = head.add_gradients(d_logits, scored, gradients)
        if sums.d_hidden is not None and d_rows is not None:
            sums.d_hidden.index_add_(0, group.positions[chunk], d_rows.to(sums.d_hidden.dtype))


def _losses_and_slopes(
    what: ScoredPairs, by_score: Float[Tensor, "scores pairs"], pairs: slice, *, wanted: bool
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, "scores pairs"] | None]:
    """Each pair's loss, and its derivative by each of the pair's log-probabilities."""
    with torch.set_grad_enabled(wanted):
        leaves = by_score.detach().requires_grad_(wanted)
        losses = what.pair_losses(TreeLogps(**dict(zip(what.scores, leaves.unbind(), strict=True))), pairs)
        slopes = torch.autograd.grad(losses.sum(), leaves)[0] if wanted else None
    return losses.detach().to(by_score.dtype), slopes
