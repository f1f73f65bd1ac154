"""Objectives that couple pairs (aot sorts margins over the step): the exact gradient without one huge batch.

Equivalent to `losses(all pairs of the step).mean().backward()`: a first pass without gradient collects every pair's
log-probabilities over micro-batches and processes, the loss of the whole step is differentiated with respect to them,
and the second pass back-propagates those coefficients (GradCache, arXiv 2101.06983, section 3).
"""

from __future__ import annotations

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


def coupled_coefficients(
    parts: TrainerParts, model: nn.Module, share: StepShare, device: torch.device
) -> dict[int, dict[Score, float]]:
    """∂(sum of the step's losses)/∂(each log-probability), by data set row and score."""
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
                "reference": {
                    name: float(value[position])
                    for name, value in vars(micro_batch.reference).items()
                    if value is not None
                }
                if micro_batch.reference is not None
                else None,
                "lengths": (int(batch.chosen_lengths[position]), int(batch.rejected_lengths[position])),
            }
    rows = _gather(rows)
    order = sorted(rows)
    leaves = {
        score: torch.tensor([rows[row]["policy"][score] for row in order], requires_grad=True) for score in parts.scores
    }
    losses = parts.losses(TreeLogps(**leaves), _reference(rows, order), _lengths(rows, order), share.progress)
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    return {
        row: {
            score: 0.0 if gradient is None else float(gradient[position])
            for score, gradient in zip(leaves, gradients, strict=True)
        }
        for position, row in enumerate(order)
    }


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
