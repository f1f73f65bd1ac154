"""Metrics of pairs as sums and counts: never a mean of means, one all-reduce and one host sync per reading.

`METRICS` says what each name means and in which unit. A metric is logged where the scores it needs were computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inspo_hub.views import ResponseView, Score, TreeLogps

if TYPE_CHECKING:
    from inspo_hub.conditioning import ReferenceContext

Kind = Literal["mean", "deviation", "total"]


@dataclass(frozen=True)
class Metric:
    """What a logged number is."""

    unit: str
    meaning: str
    kind: Kind = "mean"
    """mean: Σ value / Σ count; deviation: standard deviation over pairs; total: Σ value."""


_REWARD = "the objective's implicit reward (β·log-ratio; per token where the objective compares means)"
_SIDES = {
    "plain": "of the responses as they are used, π(·|x)",
    "conditioned": "of the responses as they are trained, given the alternative where the conditioning gives it",
}


def _rows() -> dict[str, Metric]:
    rows = {"loss": Metric("loss", "mean loss of a pair")}
    for side, which in _SIDES.items():
        for response in ("chosen", "rejected"):
            rows[f"{side}_reward_{response}"] = Metric("reward", f"{_REWARD}, {response}, {which}")
        rows[f"{side}_margin"] = Metric("reward", f"reward of chosen less reward of rejected, {which}")
        rows[f"{side}_margin_std"] = Metric("reward", f"standard deviation over pairs of {side}_margin", "deviation")
        rows[f"{side}_accuracy"] = Metric("share", f"pairs with {side}_margin > 0; a tie counts a half")
    rows["distillation_gap"] = Metric("reward", "conditioned_margin less plain_margin of the same pairs")
    for side, which in _SIDES.items():
        for response in ("chosen", "rejected"):
            rows[f"{side}_logp_per_token_{response}"] = Metric(
                "nats per token", f"log-probability over all {response} tokens, {which}"
            )
    for response in ("chosen", "rejected"):
        rows[f"plain_log_ratio_per_token_{response}"] = Metric(
            "nats per token", f"log π(y|x) - log π_ref(y|x) over all {response} tokens"
        )
    rows["offline_kl_estimate"] = Metric(
        "nats per response",
        "mean of log π_ref(y|x) - log π(y|x) over both responses of the data: the k1 estimator of KL(π_ref‖π), "
        "unbiased only where the reference sampled the responses; on other data a drift, which may be negative. "
        "KL(π‖π_ref) needs samples of the policy: `evaluate` in the recipe measures it",
    )
    for response in ("chosen", "rejected"):
        rows[f"length_{response}"] = Metric("tokens", f"mean length of the {response} response, end token included")
    rows["longer_chosen_share"] = Metric("share", "pairs whose chosen response is the longer one; a tie counts a half")
    rows["truncated_share"] = Metric("share", "pairs from which the over-long policy removed tokens")
    rows["pairs"] = Metric("pairs", "pairs counted since the last reading", "total")
    return rows


METRICS: Mapping[str, Metric] = MappingProxyType(_rows())
"""Name -> unit and meaning, in the order in which they are logged."""
_NAMES = tuple(METRICS)
_INDEX = {name: index for index, name in enumerate(_NAMES)}


class HasLengths(Protocol):
    """A packed batch, or whatever else knows its pairs' response lengths, integers `(pairs,)`."""

    @property
    def chosen_lengths(self) -> Tensor: ...
    @property
    def rejected_lengths(self) -> Tensor: ...


class PairMetrics:
    """Accumulates every metric of `METRICS` on the device as (Σ value, Σ value², Σ count).

    Sums are float64, so that they do not depend on how pairs are grouped beyond the last digits; float32 on devices
    without it (mps).

    Args:
        device: where updates come from.
        rewards: implicit reward of a response `(pairs,)`: an objective's `rewards`.
    """

    def __init__(self, device: torch.device | str, *, rewards: Callable[[ResponseView], Tensor]) -> None:
        device = torch.device(device)
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(3, len(_NAMES), dtype=self._dtype, device=device)
        self._rewards = rewards

    @torch.no_grad()
    def update(
        self,
        policy: TreeLogps,
        reference: TreeLogps | None,
        batch: HasLengths,
        *,
        losses: Float[Tensor, " pairs"] | None = None,
        reference_context: ReferenceContext = "plain",
        truncated: Tensor | None = None,
    ) -> None:
        """Adds the pairs of one micro-batch; no host sync.

        Args:
            policy: the scores that were computed; metrics of the others are left out.
            reference: the reference's scores, as far as they are known; None for objectives without one.
            batch: the response lengths.
            losses: unscaled loss of each pair; None where it is not counted.
            reference_context: whether conditioned rewards are against the reference in the same context.
            truncated: pairs from which tokens were removed, bool `(pairs,)`; None where it is not counted.
        """
        values = _Values(self._sums.new_zeros(()), batch.chosen_lengths, batch.rejected_lengths)
        sides = {
            "plain": ("chosen", "rejected"),
            "conditioned": _conditioned_scores(policy),
        }
        margins: dict[str, Tensor] = {}
        for side, (chosen, rejected) in sides.items():
            rewards = {}
            for response, score in (("chosen", chosen), ("rejected", rejected)):
                view = _response(policy, reference, score, values.lengths(response), reference_context)
                if view is None:
                    continue
                values.add(f"{side}_logp_per_token_{response}", view.logps, view.lengths)
                if reference is None or view.reference_logps is not None:
                    rewards[response] = self._rewards(view)
                    values.add(f"{side}_reward_{response}", rewards[response])
            if len(rewards) == 2:
                margins[side] = rewards["chosen"] - rewards["rejected"]
                values.add(f"{side}_margin", margins[side])
                values.add(f"{side}_margin_std", margins[side])
                values.add(f"{side}_accuracy", _wins(margins[side]))
        if len(margins) == 2:
            values.add("distillation_gap", margins["conditioned"] - margins["plain"])
        values.add_drift(policy, reference)
        values.add_pairs(losses, truncated)
        self._sums += values.stack(self._dtype)

    def reduce(self, accelerator: Any = None) -> dict[str, float]:
        """Every counted metric over all processes, by name: one all-reduce and one host sync. Nothing is reset.

        All processes must call it, those without pairs as well.
        """
        return _read(self._reduced(accelerator))

    def reset(self) -> None:
        """Forgets everything that was counted."""
        self._sums.zero_()

    def state_dict(self, accelerator: Any = None) -> dict[str, list[float]]:
        """The sums of all processes together by metric, exact, for a checkpoint. All processes must call it."""
        return dict(zip(_NAMES, self._reduced(accelerator).T.tolist(), strict=True))

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Replaces what was counted; one process takes over the sums of all, the others start from nothing."""
        table = [state.get(name, [0.0, 0.0, 0.0]) for name in _NAMES]
        self._sums.copy_(torch.tensor(table, dtype=self._dtype).T)

    def _reduced(self, accelerator: Any) -> Tensor:
        return self._sums if accelerator is None else accelerator.reduce(self._sums.clone(), "sum")


class _Values:
    """Collects (numerator, count) of each metric, pair by pair, and sums them all at once."""

    def __init__(self, zero: Tensor, chosen_lengths: Int[Tensor, " pairs"], rejected_lengths: Tensor) -> None:
        self._lengths = {"chosen": chosen_lengths, "rejected": rejected_lengths}
        self._ones = torch.ones_like(chosen_lengths, dtype=zero.dtype)
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}

    def lengths(self, response: str) -> Tensor:
        return self._lengths[response]

    def add(self, name: str, values: Tensor, counts: Tensor | None = None) -> None:
        self._rows[name] = (values, self._ones if counts is None else counts)

    def add_drift(self, policy: TreeLogps, reference: TreeLogps | None) -> None:
        """How far the plain scores have moved from the reference's."""
        drift = []
        for response in ("chosen", "rejected"):
            view = _response(policy, reference, _as_score(response), self.lengths(response), "plain")
            if view is not None and view.reference_logps is not None:
                self.add(f"plain_log_ratio_per_token_{response}", view.log_ratio, view.lengths)
                drift.append(-view.log_ratio)
        if len(drift) == 2:
            self.add("offline_kl_estimate", drift[0] + drift[1], 2 * self._ones)

    def add_pairs(self, losses: Tensor | None, truncated: Tensor | None) -> None:
        """What needs no score."""
        for response, lengths in self._lengths.items():
            self.add(f"length_{response}", lengths)
        self.add("longer_chosen_share", _wins(self._lengths["chosen"] - self._lengths["rejected"]))
        self.add("pairs", self._ones)
        if losses is not None:
            self.add("loss", losses)
        if truncated is not None:
            self.add("truncated_share", truncated)

    def stack(self, dtype: torch.dtype) -> Tensor:
        """(Σ value, Σ value², Σ count) by metric."""
        nothing = (torch.zeros_like(self._ones), torch.zeros_like(self._ones))
        rows = [self._rows.get(name, nothing) for name in _NAMES]
        values = torch.stack([value.to(dtype) for value, _ in rows])
        counts = torch.stack([count.to(dtype) for _, count in rows])
        return torch.stack([values.sum(dim=1), values.square().sum(dim=1), counts.sum(dim=1)])


def _read(sums: Tensor) -> dict[str, float]:
    """One number per counted metric; the only place where the host waits for the device."""
    result: dict[str, float] = {}
    for name, (total, square, count) in zip(_NAMES, sums.T.tolist(), strict=True):
        if count == 0:
            continue
        kind = METRICS[name].kind
        if kind == "total":
            result[name] = total
        elif kind == "deviation":
            result[name] = max(0.0, square / count - (total / count) ** 2) ** 0.5
        else:
            result[name] = total / count
    return result


def _response(
    policy: TreeLogps, reference: TreeLogps | None, score: Score | None, lengths: Tensor, context: ReferenceContext
) -> ResponseView | None:
    """The response as `score` shows it, or None where that score was not computed."""
    logps = None if score is None else getattr(policy, score)
    if logps is None or score is None:
        return None
    known = None
    if reference is not None:
        known = getattr(reference, score if context == "conditioned" else score.split("_", 1)[0])
    return ResponseView(logps=logps, reference_logps=known, lengths=lengths)


def _conditioned_scores(policy: TreeLogps) -> tuple[Score | None, Score | None]:
    """The conditioned score of each response, its plain one where only the other response is conditioned."""
    if policy.chosen_given_rejected is None and policy.rejected_given_chosen is None:
        return None, None
    return (
        "chosen" if policy.chosen_given_rejected is None else "chosen_given_rejected",
        "rejected" if policy.rejected_given_chosen is None else "rejected_given_chosen",
    )


def _as_score(response: str) -> Score:
    return "chosen" if response == "chosen" else "rejected"


def _wins(differences: Tensor) -> Tensor:
    """1 where positive, ½ where zero, else 0; NaN stays NaN: a comparison would make a wrong answer of it."""
    wins = (torch.sign(differences) + 1) / 2
    return torch.where(differences.isnan(), differences, wins)
