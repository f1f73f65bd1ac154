"""What an alternative in the context does to a response's log-probability before any training, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from inspo_hub.cost import pair_work
from inspo_hub.dealing import pack_micro_batches
from inspo_hub.logprobs import tree_logps
from inspo_hub.packing import Layout, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score

GIVEN: Score = "chosen_given_rejected"


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores any pairs with one model; how it packs is the run's."""

    model: nn.Module
    layout: Layout
    tokens_per_microbatch: int
    max_length: int
    max_alternative_tokens: int | None
    compute_dtype: torch.dtype

    def logps(
        self, pairs: Sequence[PreferencePair], separator: Sequence[int], scores: tuple[Score, ...]
    ) -> dict[Score, np.ndarray]:
        """Log-probabilities in nats, float64 `(pairs,)` per score."""
        device = next(self.model.parameters()).device
        found = {score: np.full(len(pairs), np.nan) for score in scores}
        for members in pack_micro_batches(self._tokens(pairs, separator, scores), self.tokens_per_microbatch):
            batch = pack_pairs(
                [pairs[member] for member in members],
                conditioning=scores,
                separator=separator,
                max_alternative_tokens=self.max_alternative_tokens,
                layout=self.layout,
            ).to(device)
            bfloat16 = self.compute_dtype == torch.bfloat16
            with torch.no_grad(), torch.autocast(device.type, self.compute_dtype, enabled=bfloat16):
                logps = tree_logps(self.model, batch, scores=scores)
            for score in scores:
                found[score][list(members)] = logps.get(score).double().cpu().numpy()
        return found

    def _tokens(
        self, pairs: Sequence[PreferencePair], separator: Sequence[int], scores: tuple[Score, ...]
    ) -> list[int]:
        return [
            int(
                pair_work(
                    (len(pair.prompt), len(pair.chosen), len(pair.rejected)),
                    scores=scores,
                    separator=len(separator),
                    max_alternative_tokens=self.max_alternative_tokens,
                    layout=self.layout,
                ).tokens
            )
            for pair in pairs
        ]


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Scores of some pairs, and of their chosen responses given other alternatives; nats, float64 `(pairs,)` each."""

    scores: dict[Score, np.ndarray]
    """All four of the pairs."""
    given_itself: np.ndarray
    """log π(y_w | x, y_w): how much it copies."""
    given_foreign: np.ndarray
    """log π(y_w | x, a response to another prompt)."""
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray

    @property
    def partner(self) -> np.ndarray:
        """log π(y_w | x, y_l) - log π(y_w | x): what the alternative that InSPO shows does."""
        return self.scores[GIVEN] - self.scores["chosen"]

    @property
    def itself(self) -> np.ndarray:
        """The same, where the alternative is the response."""
        return self.given_itself - self.scores["chosen"]

    @property
    def foreign(self) -> np.ndarray:
        """The same, where the alternative answers another prompt."""
        return self.given_foreign - self.scores["chosen"]

    @property
    def reading(self) -> np.ndarray:
        """How much more a response is helped by itself than by a response to another prompt: 0 where the base does
        not look at what stands there."""
        return self.given_itself - self.given_foreign

    def to_dict(self) -> dict[str, Any]:
        found = {name: spread(getattr(self, name)) for name in ("partner", "itself", "foreign")}
        plain = {"plain": spread(self.scores["chosen"])}
        return {"pairs": len(self.partner), "tokens": float(self.chosen_tokens.mean()), **plain, **found}


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation."""
    return {"mean": float(values.mean()), "std": float(values.std())}


def measure_offsets(scorer: Scorer, pairs: Sequence[PreferencePair], separator: Sequence[int]) -> Offsets:
    """Offsets of the pairs under the scorer's model; a pair's foreign response is the next one's rejected.

    Args:
        separator: what stands between an alternative and the response.
    """
    assert len(pairs) > 1, "a foreign response comes from another pair"
    others = [*pairs[1:], pairs[0]]
    copies = [_with_alternative(pair, pair.chosen, scorer, separator) for pair in pairs]
    strangers = [
        _with_alternative(pair, other.rejected, scorer, separator) for pair, other in zip(pairs, others, strict=True)
    ]
    return Offsets(
        scores=scorer.logps(pairs, separator, SCORES),
        given_itself=scorer.logps(copies, separator, (GIVEN,))[GIVEN],
        given_foreign=scorer.logps(strangers, separator, (GIVEN,))[GIVEN],
        chosen_tokens=np.array([len(pair.chosen) for pair in pairs]),
        rejected_tokens=np.array([len(pair.rejected) for pair in pairs]),
    )


def _with_alternative(
    pair: PreferencePair, alternative: Sequence[int], scorer: Scorer, separator: Sequence[int]
) -> PreferencePair:
    """The pair with another response as the chosen one's context, cut so that the path fits `max_length`."""
    room = scorer.max_length - len(pair.prompt) - len(separator) - len(pair.chosen)
    return PreferencePair(
        prompt=pair.prompt,
        chosen=pair.chosen,
        rejected=alternative,
        row_id=pair.row_id,
        max_alternative_tokens=max(0, room),
    )
