"""What one training run is made of, apart from the model and the Trainer's own arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspo_hub.conditioning import Conditioning, ReferenceContext
from inspo_hub.metrics import HasLengths
from inspo_hub.objectives import Objective
from inspo_hub.training.records import JsonLines
from inspo_hub.training.steps import StepDataset
from inspo_hub.views import Score, TreeLogps


@dataclass(frozen=True, kw_only=True)
class TrainerParts:
    """What a PreferenceTrainer needs beside model, arguments and tokenizer."""

    objective: Objective
    conditioning: Conditioning
    reference_context: ReferenceContext
    steps: StepDataset
    row_id: Callable[[int], str]
    """Names a data set row, for errors."""
    metrics_log: JsonLines
    timings_log: JsonLines
    keep_checkpoints: int
    on_save: Callable[[Path, int], None]
    """Called by the first process with every sealed checkpoint and its step; must return at once."""
    training_key: dict[str, Any]
    """What a checkpoint belongs to: resuming compares it with the recipe's."""
    always_observed: bool = False
    """Read the scores that the layout gives away and the loss does not use in every step, not in logged ones only."""

    rehearse: bool = False
    """Run the largest micro-batch before the first two steps, so that memory runs out then or never."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores that are trained."""
        scores = self.conditioning.scores
        return (*scores, "chosen") if self.objective.needs_plain_chosen and "chosen" not in scores else scores

    def losses(self, policy: TreeLogps, reference: TreeLogps | None, batch: HasLengths, progress: float) -> Tensor:
        """Loss per pair `(pairs,)`, unreduced: the conditioning's weighted mean of the objective over its views."""
        views = self.conditioning.views(
            policy,
            reference,
            chosen_lengths=batch.chosen_lengths,
            rejected_lengths=batch.rejected_lengths,
            reference_context=self.reference_context,
            progress=progress,
            with_plain_chosen=self.objective.needs_plain_chosen,
        )
        terms = [weight * self.objective.pair_losses(view) for weight, view in views]
        return torch.stack(terms).sum(dim=0)

    def pair_losses(
        self, reference: TreeLogps | None, batch: HasLengths, progress: float
    ) -> Callable[[TreeLogps, slice], Tensor]:
        """`losses` of a run of the batch's pairs, for the head that computes its gradients in the forward."""

        def losses_of(policy: TreeLogps, pairs: slice) -> Tensor:
            return self.losses(policy, _run_of(reference, pairs), _Lengths.of(batch, pairs), progress)

        return losses_of


@dataclass(frozen=True)
class _Lengths:
    """Response lengths of a run of pairs."""

    chosen_lengths: Tensor
    rejected_lengths: Tensor

    @classmethod
    def of(cls, batch: HasLengths, pairs: slice) -> _Lengths:
        return cls(batch.chosen_lengths[pairs], batch.rejected_lengths[pairs])


def _run_of(logps: TreeLogps | None, pairs: slice) -> TreeLogps | None:
    if logps is None:
        return None
    return TreeLogps(**{name: value[pairs] for name, value in vars(logps).items() if value is not None})
