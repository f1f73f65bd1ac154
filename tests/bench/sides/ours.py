"""Our own step, as the trainer takes it, and our reference pass."""

from __future__ import annotations

import torch
from torch import Tensor

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.logprobs import prepare_model, tree_logps
from inspo_hub.objectives import OBJECTIVES
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
        self.workload, self.layout = workload, name.layout
        self.computes = _COMPUTES.get(name.name, name.name)
        self.model = prepare_model(workload.fresh_policy(checkpointing=name.checkpointing), layout=name.layout)
        self.objective = OBJECTIVES["dpo"]()
        self.conditioning = CONDITIONINGS[name.name]()
        self.context = "conditioned" if self.conditioning.refuses_plain_reference else "plain"
        self.reference = workload.reference_scores(self.conditioning.reference_scores(self.context))
        self.micro_batches = workload.micro_batches(self.conditioning.scores, name.layout)

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.micro_batches:
            batch = self.workload.pack(members, self.conditioning.scores, self.layout)
            views = self.conditioning.views(
                tree_logps(self.model, batch),
                TreeLogps(
                    **{name: scores[members] for name, scores in vars(self.reference).items() if scores is not None}
                ),
                chosen_lengths=batch.chosen_lengths,
                rejected_lengths=batch.rejected_lengths,
                reference_context=self.context,
            )
            loss = torch.stack([weight * self.objective.pair_losses(view) for weight, view in views]).sum()
            loss = loss / len(self.workload.pairs)
            loss.backward()
            total += loss.detach()
        return total


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
