"""Conditionings: which of a pair's four log-probabilities score it, in policy and reference. Imports no torch.

A conditioning turns (policy, reference) scores into weighted views; the loss of a pair is Σ weight · objective(view).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspo_hub.views import SCORES, ResponseView, Score, TreeLogps, View

if TYPE_CHECKING:
    from torch import Tensor

ReferenceContext = Literal["plain", "conditioned"]
PLAIN_SCORE: Mapping[Score, Score] = MappingProxyType(
    {
        "chosen": "chosen",
        "rejected": "rejected",
        "chosen_given_rejected": "chosen",
        "rejected_given_chosen": "rejected",
    }
)
"""The score of the same response without its alternative."""


class Conditioning(BaseModel):
    """Which scores a pair is judged by; a subclass is one conditioning, its fields are recipe keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    refuses_plain_reference: ClassVar[bool] = False
    """True: with the reference in the plain context the loss is won without learning to tell the responses apart."""
    refuses_no_reference: ClassVar[bool] = False
    """True: it has no meaning, or the same short-cut, for objectives that use no reference."""
    caution: ClassVar[str] = ""
    """What a user is told once when a run starts with it; empty for conditionings that may be used as they are."""

    name: str

    @property
    def scores(self) -> tuple[Score, ...]:
        """The policy's scores that get a gradient."""
        raise NotImplementedError(type(self).__name__)

    def needed_scores(self, *, with_plain_chosen: bool) -> tuple[Score, ...]:
        """`scores`, and the plain chosen score where the objective has an NLL term, in the order of `SCORES`."""
        extra: tuple[Score, ...] = ("chosen",) if with_plain_chosen else ()
        return tuple(score for score in SCORES if score in (*self.scores, *extra))

    def laid_out_scores(self, *, with_plain_chosen: bool) -> tuple[Score, ...]:
        """What a training batch lays out: `needed_scores`, and the plain scores that come free on their paths."""
        needed = set(self.needed_scores(with_plain_chosen=with_plain_chosen))
        if "chosen_given_rejected" in needed:
            needed.add("rejected")
        if "rejected_given_chosen" in needed:
            needed.add("chosen")
        return tuple(score for score in SCORES if score in needed)

    def reference_scores(self, reference_context: ReferenceContext) -> tuple[Score, ...]:
        """The scores that the reference must have, in the order of `SCORES`."""
        wanted = {_in_reference(score, reference_context) for score in self.scores}
        return tuple(score for score in SCORES if score in wanted)

    def refusal(self, *, reference_context: ReferenceContext, uses_reference: bool) -> str:
        """Why this conditioning must not train with such a reference; empty where it may. The recipe raises it."""
        if self.refuses_no_reference and not uses_reference:
            return f"conditioning {self.name!r} needs an objective that uses a reference"
        if self.refuses_plain_reference and uses_reference and reference_context == "plain":
            return (
                f"conditioning {self.name!r} needs `reference.context: conditioned`: against a plain reference the "
                "alternative's effect does not cancel and the loss is won by recognising the format"
            )
        return ""

    def views(
        self,
        policy: TreeLogps,
        reference: TreeLogps | None,
        *,
        chosen_lengths: Tensor,
        rejected_lengths: Tensor,
        reference_context: ReferenceContext,
        progress: float = 0.0,
        with_plain_chosen: bool = False,
    ) -> list[tuple[float, View]]:
        """The weighted views of the pairs; weights are positive and sum to 1.

        Args:
            policy: scores with gradient; at least `needed_scores`.
            reference: scores without gradient, at least `reference_scores`; None where the objective uses none.
            chosen_lengths: scored tokens of the chosen response `(pairs,)`.
            rejected_lengths: scored tokens of the rejected response `(pairs,)`.
            reference_context: whether the reference sees the alternative where the policy does.
            progress: 0 at the first optimizer step, 1 at the last.
            with_plain_chosen: give the views log π(y_w|x), for objectives with an NLL term.
        """
        assert 0.0 <= progress <= 1.0, f"progress is a share of the training, not {progress}"
        lengths = {"chosen": chosen_lengths, "rejected": rejected_lengths}
        sides = _Sides(policy=policy, reference=reference, lengths=lengths, context=reference_context)
        plain = policy.get("chosen") if with_plain_chosen else None
        return [
            (weight, View(chosen=sides.view(chosen), rejected=sides.view(rejected), plain_chosen_logps=plain))
            for weight, chosen, rejected in self.score_pairs(progress)
            if weight > 0
        ]

    def score_pairs(self, progress: float) -> list[tuple[float, Score | None, Score]]:
        """(weight, score of the chosen response or None for a constant, score of the rejected one) of each view."""
        raise NotImplementedError(type(self).__name__)


class NoConditioning(Conditioning):
    """π(y_w|x) against π(y_l|x): the plain DPO family."""

    name: Literal["none"] = "none"

    @property
    def scores(self) -> tuple[Score, ...]:
        return ("chosen", "rejected")

    def score_pairs(self, progress: float) -> list[tuple[float, Score | None, Score]]:
        return [(1.0, "chosen", "rejected")]


class OneSided(Conditioning):
    """π(y_w|x,y_l) against π(y_l|x), or the other way round: only one response sees its alternative.

    Tends to be won by recognising the format even where the reference is scored in the same contexts.
    """

    refuses_plain_reference: ClassVar[bool] = True
    refuses_no_reference: ClassVar[bool] = True
    name: Literal["one_sided"] = "one_sided"
    conditioned: Literal["chosen", "rejected"] = Field(
        "chosen", description="The response that sees the other one: chosen or rejected."
    )

    @property
    def scores(self) -> tuple[Score, ...]:
        return (
            ("rejected", "chosen_given_rejected")
            if self.conditioned == "chosen"
            else ("chosen", "rejected_given_chosen")
        )

    def score_pairs(self, progress: float) -> list[tuple[float, Score | None, Score]]:
        if self.conditioned == "chosen":
            return [(1.0, "chosen_given_rejected", "rejected")]
        return [(1.0, "chosen", "rejected_given_chosen")]


class Symmetric(Conditioning):
    """π(y_w|x,y_l) against π(y_l|x,y_w): InSPO, the INS- variants of arXiv:2512.23126."""

    name: Literal["symmetric"] = "symmetric"

    @property
    def scores(self) -> tuple[Score, ...]:
        return ("chosen_given_rejected", "rejected_given_chosen")

    def score_pairs(self, progress: float) -> list[tuple[float, Score | None, Score]]:
        return [(1.0, "chosen_given_rejected", "rejected_given_chosen")]


class Mixed(Conditioning):
    """(1-w)·L_symmetric + w·L_none: a mean of two losses, not the loss of a mean score."""

    @property
    def scores(self) -> tuple[Score, ...]:
        return SCORES

    def plain_weight(self, progress: float) -> float:
        """w at this progress, in [0, 1]."""
        raise NotImplementedError(type(self).__name__)

    def score_pairs(self, progress: float) -> list[tuple[float, Score | None, Score]]:
        weight = self.plain_weight(progress)
        return [(1.0 - weight, "chosen_given_rejected", "rejected_given_chosen"), (weight, "chosen", "rejected")]


class Averaged(Mixed):
    """(1-w)·L_symmetric + w·L_none with a fixed w: the averaged form of arXiv:2512.23126."""

    name: Literal["averaged"] = "averaged"
    weight: float = Field(
        0.5, ge=0, le=1, description="w in [0, 1]: share of the plain loss; 0 is symmetric, 1 is none."
    )

    def plain_weight(self, progress: float) -> float:
        return self.weight


class Annealed(Mixed):
    """(1-w)·L_symmetric + w·L_none, w linear over training: from the policy that compares to the one that is used."""

    name: Literal["annealed"] = "annealed"
    start: float = Field(0.0, ge=0, le=1, description="w in [0, 1] at the first step: share of the plain loss.")
    end: float = Field(1.0, ge=0, le=1, description="w in [0, 1] at the last step: share of the plain loss.")

    def plain_weight(self, progress: float) -> float:
        # Convex form: exactly `start` at 0 and `end` at 1, and never outside of them.
        return (1.0 - progress) * self.start + progress * self.end


class RejectedOnly(Conditioning):
    """π(y_l|x,y_w) against a constant: the single-term loss of the authors' released code, kept as an ablation.

    The chosen side is a constant of log-ratio 0, so that dpo gives -log σ(-β(log π(y_l|x,y_w) - log π_ref(y_l|·))).
    Degenerate: no term looks at the chosen response, and the infimum is reached by moving probability to anything that
    was never a rejected answer. Without a reference a constant chosen score would claim probability 1: refused.
    """

    refuses_no_reference: ClassVar[bool] = True
    caution: ClassVar[str] = (
        "conditioning 'rejected_only' is an ablation: its loss has no chosen term and tends to collapse; "
        "use symmetric, averaged or annealed to train a model for use"
    )
    name: Literal["rejected_only"] = "rejected_only"

    @property
    def scores(self) -> tuple[Score, ...]:
        return ("rejected_given_chosen",)

    def score_pairs(self, progress: float) -> list[tuple[float, Score | None, Score]]:
        return [(1.0, None, "rejected_given_chosen")]


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Builds response views by score, so that policy, reference and lengths can only meet by name."""

    policy: TreeLogps
    reference: TreeLogps | None
    lengths: Mapping[str, Tensor]
    context: ReferenceContext

    def view(self, score: Score | None) -> ResponseView:
        """The response that `score` scores; None is a chosen response of constant log-ratio 0."""
        if score is None:
            assert self.reference is not None, "a constant chosen side needs an objective with a reference"
            rejected = self.policy.get("rejected_given_chosen")
            zero = rejected.detach().new_zeros(rejected.shape)
            return ResponseView(logps=zero, reference_logps=zero, lengths=self.lengths["chosen"])
        reference = None
        if self.reference is not None:
            reference = self.reference.get(_in_reference(score, self.context))
        return ResponseView(
            logps=self.policy.get(score), reference_logps=reference, lengths=self.lengths[PLAIN_SCORE[score]]
        )


def _in_reference(score: Score, context: ReferenceContext) -> Score:
    return score if context == "conditioned" else PLAIN_SCORE[score]


_ROWS: tuple[type[Conditioning], ...] = (NoConditioning, OneSided, Symmetric, Averaged, Annealed, RejectedOnly)
CONDITIONINGS: Mapping[str, type[Conditioning]] = MappingProxyType(
    {row.model_fields["name"].default: row for row in _ROWS}
)
"""Name in a recipe -> conditioning. A new conditioning is one class above and one row here."""
