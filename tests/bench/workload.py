"""A case as it is run: the pairs, the policy's and the reference's weights, and what was cached before training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from inspo_hub.dealing import pack_micro_batches
from inspo_hub.logprobs import prepare_model, tree_logps
from inspo_hub.packing import Layout, PackedBatch, pack_pairs, packed_tokens
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import AlternativeGradient, Score, TreeLogps
from tests.bench.case import Case
from tests.bench.lengths import bench_pairs

SEPARATOR_ID = 2


class Workload:
    """Everything that the sides of a case share."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.device = torch.device(case.device)
        build = {"dtype": case.torch_dtype, "device": self.device}
        self.policy = case.model.build(seed=0, **build)
        # Another seed: log-ratios of some nats, so that losses and gradients are not those of a special point.
        self.reference = case.model.build(seed=1, **build).requires_grad_(False)
        self.pairs: Sequence[PreferencePair] = bench_pairs(
            case.lengths,
            pairs=case.pairs,
            max_length=case.max_length,
            vocab=case.model.vocab,
            batch=case.batch,
            seed=case.seed,
        )
        self._cached: dict[Score, Tensor] = {}

    @cached_property
    def separator(self) -> list[int]:
        return [SEPARATOR_ID] * self.case.separator

    def fresh_policy(self, *, checkpointing: bool = False) -> torch.nn.Module:
        """The policy as an object of its own, for a side to patch; its weights and gradients are everybody's."""
        return _another(self.policy, checkpointing=checkpointing)

    def fresh_reference(self) -> torch.nn.Module:
        return _another(self.reference, checkpointing=False)

    def clear_gradients(self) -> None:
        self.policy.zero_grad(set_to_none=True)

    def micro_batches(
        self, scores: Sequence[Score], layout: Layout, *, alternative_gradient: AlternativeGradient = "full"
    ) -> list[list[int]]:
        """The pairs of each packed row, under the token budget."""
        how = {"separator": self.separator, "layout": layout, "alternative_gradient": alternative_gradient}
        tokens = [packed_tokens(pair, scores, **how) for pair in self.pairs]
        return pack_micro_batches(tokens, self.case.tokens_per_microbatch)

    def pack(
        self,
        members: Sequence[int],
        scores: Sequence[Score],
        layout: Layout,
        *,
        alternative_gradient: AlternativeGradient = "full",
    ) -> PackedBatch:
        how = {"separator": self.separator, "layout": layout, "alternative_gradient": alternative_gradient}
        return pack_pairs([self.pairs[member] for member in members], tuple(scores), **how).to(self.device)

    def reference_scores(self, scores: Sequence[Score]) -> TreeLogps:
        """The reference's log-probabilities of all pairs: scored once, as before a training, then kept."""
        missing = [score for score in scores if score not in self._cached]
        if missing:
            model = prepare_model(self.fresh_reference())
            for score in missing:
                self._cached[score] = torch.empty(len(self.pairs), device=self.device)
            with torch.no_grad():
                for members in self.micro_batches(missing, "tree"):
                    logps = tree_logps(model, self.pack(members, missing, "tree"))
                    for score in missing:
                        self._cached[score][members] = logps.get(score)
        return TreeLogps(**{score: self._cached[score] for score in scores})


def _another(model: torch.nn.Module, *, checkpointing: bool) -> torch.nn.Module:
    """The module structure once more, around the very same parameters."""
    clone = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    if checkpointing:
        clone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return clone.train()
