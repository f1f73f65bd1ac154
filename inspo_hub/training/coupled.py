"""Objectives that couple pairs (aot sorts margins over the step): the exact gradient without one huge batch.

Equivalent to `losses(all pairs of the step).mean().backward()`: a first pass without gradient collects every pair's
log-probabilities over micro-batches and processes, the loss of the whole step is differentiated with respect to them,
and the second pass back-propagates those coefficients (GradCache, arXiv 2101.06983, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from inspo_hub.logprobs import tree_logps
from inspo_hub.views import Score, TreeLogps

if TYPE_CHECKING:
    from inspo_hub.training.parts import TrainerParts
    from inspo_hub.training.steps import StepShare


@dataclass(frozen=True)
class CoupledPair:
    """What the whole step says of one of its pairs."""

    loss: float
    slopes: dict[Score, float]
    """∂(sum of the step's losses)/∂(the pair's log-probability), by score."""


def couple_pairs(
    parts: TrainerParts, model: nn.Module, share: StepShare, device: torch.device
) -> dict[int, CoupledPair]:
    """Loss and slopes of every pair of the step, by data set row, with all pairs taken together."""
    rows = _gather(_collect(parts, model, share, device))
    order = sorted(rows)
    leaves = {
        score: torch.tensor([rows[row]["policy"][score] for row in order], requires_grad=True) for score in parts.scores
    }
    losses = parts.losses(TreeLogps(**leaves), _reference(rows, order), _lengths(rows, order), share.progress)
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    slopes = {
        score: [0.0] * len(order) if gradient is None else gradient.tolist()
        for score, gradient in zip(leaves, gradients, strict=True)
    }
    return {
        row: CoupledPair(loss, {score: values[position] for score, values in slopes.items()})
        for position, (row, loss) in enumerate(zip(order, losses.detach().tolist(), strict=True))
    }


def _collect(
    parts: TrainerParts, model: nn.Module, share: StepShare, device: torch.device
) -> dict[int, dict[str, Any]]:
    """This process's pairs: log-probabilities of policy and reference, and response lengths."""
    rows: dict[int, dict[str, Any]] = {}
    for micro_batch in share.micro_batches:
        batch = micro_batch.batch.to(device)
        with torch.no_grad():
            policy = tree_logps(model, batch, scores=parts.scores)
        if micro_batch.filler:
            continue
        for position, row in enumerate(micro_batch.rows):
            rows[row] = {
                "policy": {score: float(policy.get(score)[position]) for score in parts.scores},
                "reference": _known(micro_batch.reference, position),
                "lengths": (int(batch.chosen_lengths[position]), int(batch.rejected_lengths[position])),
            }
    return rows


def _known(reference: TreeLogps | None, position: int) -> dict[str, float] | None:
    if reference is None:
        return None
    return {name: float(value[position]) for name, value in vars(reference).items() if value is not None}


def _reference(rows: dict[int, dict[str, Any]], order: list[int]) -> TreeLogps | None:
    names = rows[order[0]]["reference"]
    if names is None:
        return None
    return TreeLogps(**{name: torch.tensor([rows[row]["reference"][name] for row in order]) for name in names})


def _lengths(rows: dict[int, dict[str, Any]], order: list[int]) -> Any:
    chosen, rejected = zip(*(rows[row]["lengths"] for row in order), strict=True)
    return SimpleNamespace(chosen_lengths=torch.tensor(chosen), rejected_lengths=torch.tensor(rejected))


def _gather(rows: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Every process's rows, on every process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, rows)
    return {row: values for part in parts for row, values in part.items()}
