"""What travels between log-probabilities, conditionings and objectives. Reading this module imports no torch.

All tensors are `(pairs,)`, float32 and in nats unless said otherwise; a score that a batch did not compute is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Score = Literal["chosen", "rejected", "chosen_given_rejected", "rejected_given_chosen"]
SCORES: tuple[Score, ...] = get_args(Score)
AlternativeGradient = Literal["full", "stopped"]
"""Whether a response that is scored given an alternative trains what it is given: prompt, alternative, separator."""


@dataclass(frozen=True, kw_only=True)
class TreeLogps:
    """The summed log-probabilities of each pair: log π(y_w|x), log π(y_l|x), log π(y_w|x,y_l), log π(y_l|x,y_w)."""

    chosen: Tensor | None = None
    rejected: Tensor | None = None
    chosen_given_rejected: Tensor | None = None
    rejected_given_chosen: Tensor | None = None

    def get(self, score: Score) -> Tensor:
        """The score's `(pairs,)` tensor; asking for one that was not computed is a programmer's error."""
        value = getattr(self, score)
        assert value is not None, f"{score} was not computed for this batch"
        return value


@dataclass(frozen=True, kw_only=True)
class ResponseView:
    """One response of each pair as a conditioning shows it to an objective."""

    logps: Tensor
    """Policy log-probabilities `(pairs,)`."""
    reference_logps: Tensor | None
    """Reference log-probabilities `(pairs,)`, without gradient; None for objectives that use no reference."""
    lengths: Tensor
    """Scored tokens of the response `(pairs,)`, integers."""

    @property
    def log_ratio(self) -> Tensor:
        assert self.reference_logps is not None, "this objective needs reference log-probabilities"
        return self.logps - self.reference_logps


@dataclass(frozen=True, kw_only=True)
class View:
    """A pair as one conditioning shows it: both responses, and the plain chosen score that NLL terms use."""

    chosen: ResponseView
    rejected: ResponseView
    plain_chosen_logps: Tensor | None = None
    """log π(y_w|x) `(pairs,)`, where the objective has an NLL term; never the conditioned score."""
