"""Our own step, as the trainer takes it, and our reference pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inspo_hub.conditioning import CONDITIONINGS, ReferenceContext
from inspo_hub.logprobs import prepare_model, tree_logps, tree_losses
from inspo_hub.models import compile_layers
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.packing import PackedBatch
from inspo_hub.views import Score, TreeLogps
from tests.bench.sides.side import SideName
from tests.bench.workload import Workload

_PLAIN: tuple[Score, Score] = ("chosen", "rejected")
_COMPUTES = {"none": "dpo", "symmetric": "inspo"}


class OurStep:
    """Micro-batches of packed rows, DPO's loss under a conditioning, cached reference scores."""

    holds_reference = False
    note = ""

    def __init__(self, workload: Workload, name: SideName) -> None:
        self.workload, self.name = workload, name
        # Stopped gradients are other gradients: nothing else computes them.
        self.computes = f"{name.name}, stopped" if name.stopped else _COMPUTES.get(name.name, name.name)
        self.model = prepare_model(workload.fresh_policy(checkpointing=name.checkpointing), layout=name.layout)
        if name.compiled:
            compile_layers(self.model)
        self.objective = OBJECTIVES["dpo"]()
        self.conditioning = CONDITIONINGS[name.name]()
        self.context: ReferenceContext = "conditioned" if self.conditioning.refuses_plain_reference else "plain"
        self.reference_names = self.conditioning.reference_scores(self.context)
        self.reference = workload.reference_scores(self.reference_names)
        trained = self.conditioning.scores
        self.laid_out = self.conditioning.laid_out_scores(with_plain_chosen=False) if name.observed else trained
        self.observed = tuple(score for score in self.laid_out if score not in trained)
        self.micro_batches = workload.micro_batches(
            self.laid_out, name.layout, alternative_gradient=name.alternative_gradient
        )

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        scores = self.conditioning.scores
        for members in self.micro_batches:
            batch = self.workload.pack(
                members, self.laid_out, self.name.layout, alternative_gradient=self.name.alternative_gradient
            )
            pair_losses = self._pair_losses(batch, members)
            if self.name.recomputed:
                loss = pair_losses(tree_logps(self.model, batch, scores=scores), slice(None)).sum()
            else:
                scored = tree_losses(self.model, batch, pair_losses, scores=scores, no_grad_scores=self.observed)
                loss = scored.total
            loss = loss / len(self.workload.pairs)
            loss.backward()
            total += loss.detach()
        return total

    def _pair_losses(self, batch: PackedBatch, members: list[int]) -> Callable[[TreeLogps, slice], Tensor]:
        """The loss of each of some of the batch's pairs, of their log-probabilities."""
        reference = {name: self.reference.get(name)[members] for name in self.reference_names}

        def losses(policy: TreeLogps, pairs: slice) -> Tensor:
            views = self.conditioning.views(
                policy,
                TreeLogps(**{name: values[pairs] for name, values in reference.items()}),
                chosen_lengths=batch.chosen_lengths[pairs],
                rejected_lengths=batch.rejected_lengths[pairs],
                reference_context=self.context,
            )
            return torch.stack([weight * self.objective.pair_losses(view) for weight, view in views]).sum(0)

        return losses


class OurReferencePass:
    """The plain scores of the reference, on the tree without conditioning: what a training does once."""

    holds_reference = False
    note = ""
    computes = "reference"

    def __init__(self, workload: Workload, name: SideName) -> None:
        self.workload, self.layout = workload, name.layout
        self.model = prepare_model(workload.fresh_reference(), layout=name.layout)
        self.micro_batches = workload.micro_batches(_PLAIN, name.layout)

    @torch.no_grad()
    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.micro_batches:
            logps = tree_logps(self.model, self.workload.pack(members, _PLAIN, self.layout))
            total += logps.get("chosen").sum() - logps.get("rejected").sum()
        return total / len(self.workload.pairs)
