"""Held-out metrics: the same sums and counts as in training, with all four scores, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inspo_hub.conditioning import ReferenceContext
from inspo_hub.logprobs import tree_logps
from inspo_hub.metrics import HasLengths, PairMetrics
from inspo_hub.objectives import Objective
from inspo_hub.training.engine import gather_nothing
from inspo_hub.training.steps import StepDataset, to_device
from inspo_hub.views import SCORES, TreeLogps

Losses = Callable[[TreeLogps, TreeLogps | None, HasLengths, float], Tensor]


class Heldout:
    """The held-out pairs as one big step: dealt to processes by cost, packed under the token budget.

    So every pair is counted once, whatever the batch size, and processes without pairs still join the collectives.

    Args:
        step: a StepDataset of one step that holds all held-out rows, packed for all four scores.
        losses: loss per pair; None for objectives that couple pairs, whose value depends on the batch.
    """

    def __init__(
        self, step: StepDataset, *, losses: Losses | None, objective: Objective, reference_context: ReferenceContext
    ) -> None:
        assert len(step) == 1, "held-out pairs are one step"
        self.step, self.losses, self.objective, self.reference_context = step, losses, objective, reference_context

    def __len__(self) -> int:
        return len(self.step.steps[0])

    def evaluate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Metrics of `model` on the held-out pairs, reduced over processes."""
        share, metrics = self.step[0], PairMetrics(accelerator.device, rewards=self.objective.rewards)
        was_training = model.training
        model.eval()
        with torch.no_grad(), accelerator.autocast():
            for micro_batch in share.micro_batches:
                batch = micro_batch.batch.to(accelerator.device)
                policy = tree_logps(model, batch, scores=SCORES)
                if micro_batch.filler:
                    continue
                reference = to_device(micro_batch.reference, accelerator.device)
                # The end of training is where an annealed weight stops moving: losses stay comparable over steps.
                losses = self.losses(policy, reference, batch, 1.0) if self.losses is not None else None
                metrics.update(
                    policy,
                    reference,
                    batch,
                    losses=losses,
                    reference_context=self.reference_context,
                    truncated=micro_batch.truncated.to(accelerator.device),
                )
        gather_nothing(model)
        model.train(was_training)
        return metrics.reduce(accelerator)
