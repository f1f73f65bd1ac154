"""What every objective shares: its recipe fields, its interface and the numerics that need care. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

    from inspo_hub.views import ResponseView, View

LOG_ODDS_FLOOR = 1e-12
"""Added to 1-p before its logarithm: keeps ORPO's log odds and their gradient finite at p = 1 and moves the value by
less than 1e-6 while 1-p > 1e-6, which is the resolution of a float32 log-softmax anyway."""


def beta_field(default: float, meaning: str = "") -> Any:
    """The β of an objective, in (0, ∞): implicit reward per nat of log-ratio."""
    return Field(default, gt=0, description=meaning or "β > 0: implicit reward per nat; larger stays closer to π_ref.")


def smoothing_field(default: float, meaning: str) -> Any:
    """A share of swapped labels, in [0, 0.5)."""
    return Field(default, ge=0, lt=0.5, description=f"ε in [0, 0.5): {meaning}")


class Objective(BaseModel):
    """Turns one view of the pairs into a loss per pair; a subclass is one objective, its fields are recipe keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    uses_reference: ClassVar[bool] = True
    """False: the reference is never looked at, and none has to be scored."""
    separable: ClassVar[bool] = True
    """False: a pair's loss depends on the other pairs, so that the caller decides which pairs are taken together."""
    paper: ClassVar[str]
    """Where the objective comes from, `arXiv:NNNN.NNNNN`."""
    caution: ClassVar[str] = ""
    """What a user is told once when a run starts with it; empty for objectives without a surprise."""

    name: str
    nll_weight: float = Field(
        0.0, ge=0, description="Weight ≥ 0 of an added NLL of the plain chosen response, a mean over its tokens (RPO)."
    )

    @property
    def needs_plain_chosen(self) -> bool:
        """Whether `View.plain_chosen_logps` must be there, with gradient."""
        return self.nll_weight > 0

    def pair_losses(self, view: View) -> Tensor:
        """The loss of each pair `(pairs,)`, unreduced: preference term + nll_weight · -log π(y_w|x)/n_w."""
        losses = self.preference_losses(view)
        return losses + self.nll_weight * plain_nll(view) if self.nll_weight else losses

    def preference_losses(self, view: View) -> Tensor:
        """The objective's own term of each pair `(pairs,)`, without the added NLL."""
        raise NotImplementedError(type(self).__name__)

    def rewards(self, response: ResponseView) -> Tensor:
        """The implicit reward of each response `(pairs,)`: what the objective compares, β·log_ratio unless overridden.

        Objectives that compare means over tokens report a mean, so that accuracies speak of what was trained.
        """
        raise NotImplementedError(type(self).__name__)


class BetaObjective(Objective):
    """An objective of β·log_ratio (or, without a reference, of β·logps)."""

    beta: float = beta_field(0.1)

    def rewards(self, response: ResponseView) -> Tensor:
        return self.beta * (response.log_ratio if self.uses_reference else response.logps)

    def margins(self, view: View) -> Tensor:
        """z = reward(chosen) - reward(rejected) of each pair `(pairs,)`."""
        return self.rewards(view.chosen) - self.rewards(view.rejected)


def plain_nll(view: View) -> Tensor:
    """-log π(y_w|x)/n_w `(pairs,)`: the NLL of a token of the plain chosen response, Eq. 1 of arXiv:2404.19733."""
    assert view.plain_chosen_logps is not None, "this objective has an NLL term and needs the plain chosen score"
    return -view.plain_chosen_logps / view.chosen.lengths


def reference_logps(response: ResponseView) -> Tensor:
    """The reference log-probabilities `(pairs,)` of an objective that uses them one by one, not as a log-ratio."""
    assert response.reference_logps is not None, "this objective needs reference log-probabilities"
    return response.reference_logps


def logsigmoid(values: Tensor) -> Tensor:
    """log σ(v), finite for every finite v. Equivalent to `torch.log(torch.sigmoid(v))` in exact arithmetic."""
    import torch.nn.functional as F

    return F.logsigmoid(values)


def smoothed_logistic(margins: Tensor, smoothing: float) -> Tensor:
    """-(1-ε)·log σ(z) - ε·log σ(-z): the logistic loss where a share ε of the labels is swapped."""
    losses = -(1 - smoothing) * logsigmoid(margins)
    return losses - smoothing * logsigmoid(-margins) if smoothing else losses


def log_odds(mean_logps: Tensor) -> Tensor:
    """log p/(1-p) for p = exp(mean_logps), stable near p = 0 and p = 1 (§3.1 of arXiv:2403.07691).

    Equivalent to `torch.logit(mean_logps.exp())`. Near 1 the complement comes from expm1 and near 0 from log1p; each
    branch sees only inputs of its own half, for the gradient of a branch that is not taken must not be NaN either.
    """
    import torch

    split = 0.6931471805599453  # ln 2, where both forms are equally exact
    nats = (-mean_logps).clamp(min=0.0)
    near_one = torch.log(-torch.expm1(-nats.clamp(max=split)) + LOG_ODDS_FLOOR)
    near_zero = torch.log1p(-torch.exp(-nats.clamp(min=split)))
    return mean_logps - torch.where(nats < split, near_one, near_zero)
