"""The objectives: one class and one row of `OBJECTIVES` each; recipe keys, docs and tests derive from the row.

In the formulas a and b are the log-ratios of chosen and rejected, z = β(a-b), n a length in tokens, ls = log σ.
Where a default is a paper's own setting it is that paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inspo_hub.objectives.base import (
    BetaObjective,
    Objective,
    beta_field,
    log_odds,
    logsigmoid,
    plain_nll,
    reference_logps,
    smoothed_logistic,
    smoothing_field,
)

if TYPE_CHECKING:
    from torch import Tensor

    from inspo_hub.views import ResponseView, View


class Dpo(BetaObjective):
    """-ls(z): Direct Preference Optimization, Eq. 7 of arXiv:2305.18290; with ε, -(1-ε)ls(z) - ε ls(-z) (cDPO)."""

    paper: ClassVar[str] = "arXiv:2305.18290"
    name: Literal["dpo"] = "dpo"
    label_smoothing: float = smoothing_field(
        0.0, "share of labels believed to be swapped (cDPO); the optimum is finite."
    )

    def preference_losses(self, view: View) -> Tensor:
        return smoothed_logistic(self.margins(view), self.label_smoothing)


class Robust(BetaObjective):
    """(-(1-ε)ls(z) + ε ls(-z))/(1-2ε): the unbiased loss under swapped labels (rDPO, arXiv:2403.00409)."""

    paper: ClassVar[str] = "arXiv:2403.00409"
    name: Literal["robust"] = "robust"
    beta: float = beta_field(0.01)
    label_smoothing: float = smoothing_field(0.1, "known rate of swapped labels; 0 is dpo.")

    def preference_losses(self, view: View) -> Tensor:
        z, eps = self.margins(view), self.label_smoothing
        return (-(1 - eps) * logsigmoid(z) + eps * logsigmoid(-z)) / (1 - 2 * eps)


class Ipo(BetaObjective):
    """(a/n_w - b/n_l - 1/(2β))²: Identity Preference Optimization, Eq. 17 of arXiv:2310.12036, β written τ there."""

    paper: ClassVar[str] = "arXiv:2310.12036"
    name: Literal["ipo"] = "ipo"
    beta: float = beta_field(0.1, "β > 0 (the paper's τ): the margin of log-ratios is drawn to 1/(2β) nats.")
    length_normalized: bool = Field(
        True, description="true: log-ratios are means over tokens, as the paper's results are; false: sums, as Eq. 17."
    )

    def rewards(self, response: ResponseView) -> Tensor:
        rewards = self.beta * response.log_ratio
        return rewards / response.lengths if self.length_normalized else rewards

    def preference_losses(self, view: View) -> Tensor:
        return (self.margins(view) / self.beta - 1 / (2 * self.beta)) ** 2


class Hinge(BetaObjective):
    """relu(1 - z): the hinge loss of SLiC on log-ratios, as arXiv:2309.06657 writes it (RSO)."""

    paper: ClassVar[str] = "arXiv:2309.06657"
    name: Literal["hinge"] = "hinge"

    def preference_losses(self, view: View) -> Tensor:
        return (1 - self.margins(view)).relu()


class SimPo(BetaObjective):
    """-ls(β/n_w·log π(y_w) - β/n_l·log π(y_l) - γ), no reference: Eq. 6 of arXiv:2405.14734."""

    uses_reference: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2405.14734"
    name: Literal["simpo"] = "simpo"
    beta: float = beta_field(2.0, "β > 0: reward per nat of mean log-probability; published settings 2 to 10.")
    gamma: float = Field(1.0, ge=0, description="γ ≥ 0: reward margin asked for, absolute (not the ratio γ/β).")

    def rewards(self, response: ResponseView) -> Tensor:
        return self.beta * response.logps / response.lengths

    def preference_losses(self, view: View) -> Tensor:
        return -logsigmoid(self.margins(view) - self.gamma)


class RDpo(BetaObjective):
    """-ls(z + α(n_w - n_l)): what the lengths explain is not learned again (R-DPO, arXiv:2403.19159)."""

    paper: ClassVar[str] = "arXiv:2403.19159"
    name: Literal["rdpo"] = "rdpo"
    alpha: float = Field(0.05, ge=0, description="α ≥ 0: reward per token of length difference; 0 is dpo.")

    def preference_losses(self, view: View) -> Tensor:
        margins = self.margins(view)
        # A number times an integer tensor is float32, whatever the margins are.
        longer = (view.chosen.lengths - view.rejected.lengths).to(margins.dtype)
        return -logsigmoid(margins + self.alpha * longer)


class Orpo(Objective):
    """-log π(y_w|x)/n_w - λ ls(logit p_w - logit p_l), p = π^(1/n), no reference: Eq. 6 and 7 of arXiv:2403.07691.

    The first term always reads the plain chosen score, whatever the conditioning: it is the supervised part.
    """

    uses_reference: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2403.07691"
    name: Literal["orpo"] = "orpo"
    odds_weight: float = Field(0.1, gt=0, description="λ > 0: weight of the odds-ratio term.")

    @property
    def needs_plain_chosen(self) -> bool:
        return True

    def rewards(self, response: ResponseView) -> Tensor:
        """λ · log p, the mean log-probability of a token."""
        return self.odds_weight * response.logps / response.lengths

    def preference_losses(self, view: View) -> Tensor:
        odds_w = log_odds(view.chosen.logps / view.chosen.lengths)
        odds_l = log_odds(view.rejected.logps / view.rejected.lengths)
        return plain_nll(view) - self.odds_weight * logsigmoid(odds_w - odds_l)


class Cpo(BetaObjective):
    """-ls(β(log π(y_w) - log π(y_l))) + NLL, no reference: contrastive preference optimization of arXiv:2401.08417."""

    uses_reference: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2401.08417"
    name: Literal["cpo"] = "cpo"
    label_smoothing: float = smoothing_field(0.0, "share of labels believed to be swapped.")
    nll_weight: float = Field(
        1.0, ge=0, description="Weight ≥ 0 of the NLL of the plain chosen response, a mean over its tokens; 1 in CPO."
    )

    def preference_losses(self, view: View) -> Tensor:
        return smoothed_logistic(self.margins(view), self.label_smoothing)


class SigmoidNorm(BetaObjective):
    """-ls(β(a/n_w - b/n_l)): length-normalised DPO (Tülu 3, arXiv:2411.15124)."""

    paper: ClassVar[str] = "arXiv:2411.15124"
    name: Literal["sigmoid_norm"] = "sigmoid_norm"
    beta: float = beta_field(5.0, "β > 0: reward per nat of mean log-ratio; 5 in Tülu 3.")
    label_smoothing: float = smoothing_field(0.0, "share of labels believed to be swapped.")

    def rewards(self, response: ResponseView) -> Tensor:
        return self.beta * response.log_ratio / response.lengths

    def preference_losses(self, view: View) -> Tensor:
        return smoothed_logistic(self.margins(view), self.label_smoothing)


class ExoPair(BetaObjective):
    """σ(z)(ls(z) - log(1-ε)) + σ(-z)(ls(-z) - log ε): reverse KL to smoothed labels, Eq. 16 of arXiv:2402.00856."""

    paper: ClassVar[str] = "arXiv:2402.00856"
    name: Literal["exo_pair"] = "exo_pair"
    label_smoothing: float = Field(
        1e-3, gt=0, lt=0.5, description="ε in (0, 0.5): probability the labels leave to the rejected response."
    )

    def preference_losses(self, view: View) -> Tensor:
        z, eps = self.margins(view), self.label_smoothing
        chosen = z.sigmoid() * (logsigmoid(z) - math.log1p(-eps))
        return chosen + (-z).sigmoid() * (logsigmoid(-z) - math.log(eps))


class NcaPair(BetaObjective):
    """-ls(βa) - ½ls(-βa) - ½ls(-βb): noise contrastive alignment of a pair, arXiv:2402.05369."""

    paper: ClassVar[str] = "arXiv:2402.05369"
    name: Literal["nca_pair"] = "nca_pair"
    beta: float = beta_field(0.01)

    def preference_losses(self, view: View) -> Tensor:
        reward_w, reward_l = self.rewards(view.chosen), self.rewards(view.rejected)
        return -logsigmoid(reward_w) - 0.5 * logsigmoid(-reward_w) - 0.5 * logsigmoid(-reward_l)


class BcoPair(BetaObjective):
    """-ls(βa) - ls(-βb): binary classifier optimisation of a pair, arXiv:2404.04656, with reward shift δ = 0.

    The paper's δ is a running mean over other batches; it would make a step depend on the ones before it.
    """

    paper: ClassVar[str] = "arXiv:2404.04656"
    name: Literal["bco_pair"] = "bco_pair"
    beta: float = beta_field(0.01)

    def preference_losses(self, view: View) -> Tensor:
        return -logsigmoid(self.rewards(view.chosen)) - logsigmoid(-self.rewards(view.rejected))


class SppoHard(BetaObjective):
    """(a - 1/(2β))² + (b + 1/(2β))²: self-play with hard wins, Eq. 4.7 of arXiv:2405.00675, P in {0, 1}, β = 1/η."""

    paper: ClassVar[str] = "arXiv:2405.00675"
    name: Literal["sppo_hard"] = "sppo_hard"
    beta: float = beta_field(1e-3, "β > 0, 1/η of the paper: each log-ratio is drawn to ±1/(2β) nats.")

    def preference_losses(self, view: View) -> Tensor:
        target = 1 / (2 * self.beta)
        return (view.chosen.log_ratio - target) ** 2 + (view.rejected.log_ratio + target) ** 2


class ApoZero(BetaObjective):
    """1 - σ(βa) + σ(βb): chosen up, rejected down, each by itself, Eq. 7 of arXiv:2408.06266."""

    paper: ClassVar[str] = "arXiv:2408.06266"
    name: Literal["apo_zero"] = "apo_zero"

    def preference_losses(self, view: View) -> Tensor:
        return (-self.rewards(view.chosen)).sigmoid() + self.rewards(view.rejected).sigmoid()


class ApoDown(BetaObjective):
    """σ(βa) + 1 - σ(z): both down, rejected more, for a policy better than its data, Eq. 8 of arXiv:2408.06266."""

    paper: ClassVar[str] = "arXiv:2408.06266"
    name: Literal["apo_down"] = "apo_down"

    def preference_losses(self, view: View) -> Tensor:
        return self.rewards(view.chosen).sigmoid() + (-self.margins(view)).sigmoid()


class DiscoPop(BetaObjective):
    """-(1-s) ls(z) + s exp(-z), s = σ(z/τ): the discovered log-ratio-modulated loss, Eq. 5 of arXiv:2406.08414.

    Not monotone: as published, between z = -2.37τ and z = 1.44τ (τ = 0.05) it lowers the margin, at the start as well.
    """

    paper: ClassVar[str] = "arXiv:2406.08414"
    caution: ClassVar[str] = (
        "objective 'discopop' lowers margins between -2.4 tau and 1.4 tau, hence at step 0, as its paper shows; "
        "watch plain_margin"
    )
    name: Literal["discopop"] = "discopop"
    beta: float = beta_field(0.05)
    tau: float = Field(0.05, gt=0, le=1, description="τ in (0, 1]: width in reward of the passage between both losses.")

    def preference_losses(self, view: View) -> Tensor:
        z = self.margins(view)
        # One exponent, bounded because τ ≤ 1; exp(-z) alone overflows where its weight is zero.
        exponential = (logsigmoid(z / self.tau) - z).exp()
        return exponential - (-z / self.tau).sigmoid() * logsigmoid(z)


class Aot(BetaObjective):
    """-(1-ε)ls(d) - ε ls(-d), d = β(sorted policy margins - sorted reference margins): arXiv:2406.05882.

    Alignment by optimal transport compares distributions of margins, so it couples the pairs it is given: they are its
    unit, and give other losses in other groups. Each pair gets the loss of its policy margin's rank.
    """

    separable: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2406.05882"
    name: Literal["aot"] = "aot"
    label_smoothing: float = smoothing_field(0.0, "share of labels believed to be swapped.")

    def preference_losses(self, view: View) -> Tensor:
        import torch

        chosen, rejected = view.chosen, view.rejected
        policy, order = (chosen.logps - rejected.logps).sort(stable=True)
        reference = (reference_logps(chosen) - reference_logps(rejected)).sort().values
        by_rank = smoothed_logistic(self.beta * (policy - reference), self.label_smoothing)
        return torch.empty_like(by_rank).scatter(0, order, by_rank)


# fmt: off
_ROWS: tuple[type[Objective], ...] = (
    Dpo, Robust, Ipo, Hinge, SimPo, RDpo, Orpo, Cpo, SigmoidNorm,
    ExoPair, NcaPair, BcoPair, SppoHard, ApoZero, ApoDown, DiscoPop, Aot,
)
# fmt: on
OBJECTIVES: Mapping[str, type[Objective]] = MappingProxyType({row.model_fields["name"].default: row for row in _ROWS})
"""Name in a recipe -> objective. A new objective is one class above and one row here."""
