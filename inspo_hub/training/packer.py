"""Binds packing to a run: which pairs become which batches, with the run's separator, cap, layout and token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from inspo_hub.cost import PairWork, pair_work
from inspo_hub.packing import Layout, PackedBatch, pack_pairs
from inspo_hub.pairs import PairSet
from inspo_hub.training.scoring import RowScorer
from inspo_hub.training.steps import StepDataset
from inspo_hub.views import SCORES, AlternativeGradient, Score

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Packer:
    """How this run packs; holds no tensor, so that data loading processes can have a copy."""

    layout: Layout
    separator: tuple[int, ...]
    max_alternative_tokens: int | None
    tokens_per_microbatch: int
    one_rectangle: bool = False
    """See `pack_pairs`."""

    def pack(
        self,
        pairs: PairSet,
        rows: Sequence[int],
        scores: Sequence[Score],
        *,
        alternative_gradient: AlternativeGradient = "full",
    ) -> PackedBatch:
        """The pairs in these rows, laid out so that `scores` can be read."""
        return pack_pairs(
            [pairs[row] for row in rows],
            conditioning=tuple(scores),
            separator=self.separator,
            max_alternative_tokens=self.max_alternative_tokens,
            layout=self.layout,
            alternative_gradient=alternative_gradient,
            one_rectangle=self.one_rectangle,
        )

    def tokens(self, pairs: PairSet, scores: Sequence[Score]) -> np.ndarray:
        """Tokens that each pair lays out, `(pairs,)`."""
        return np.asarray(self._work(pairs, scores).tokens)

    def _work(
        self, pairs: PairSet, scores: Sequence[Score], *, alternative_gradient: AlternativeGradient = "full"
    ) -> PairWork:
        cap = self.max_alternative_tokens
        limits = pairs.max_alternative if cap is None else np.minimum(pairs.max_alternative, cap)
        return pair_work(
            pairs.lengths,
            scores=tuple(scores),
            separator=len(self.separator),
            max_alternative_tokens=limits,
            layout=self.layout,
            alternative_gradient=alternative_gradient,
        )

    def scorer(
        self, model: nn.Module, pairs: PairSet, *, device: torch.device, compute_dtype: torch.dtype
    ) -> RowScorer:
        """Scores any of the pairs' rows with a model, without gradient."""
        return RowScorer(
            model=model,
            pack=partial(self.pack, pairs),
            tokens=self.tokens(pairs, SCORES),
            tokens_per_microbatch=self.tokens_per_microbatch,
            device=device,
            compute_dtype=compute_dtype,
        )

    def steps(
        self,
        pairs: PairSet,
        steps: Sequence[np.ndarray],
        reference: dict[Score, np.ndarray],
        scores: tuple[Score, ...],
        *,
        processes: int,
        process: int,
        alternative_gradient: AlternativeGradient = "full",
    ) -> StepDataset:
        """Optimizer steps over the pairs, as one process takes part in them."""
        work = self._work(pairs, scores, alternative_gradient=alternative_gradient)
        tokens = np.asarray(work.tokens)
        return StepDataset(
            steps=steps,
            pack=partial(self.pack, pairs, scores=scores, alternative_gradient=alternative_gradient),
            tokens=tokens,
            # A backward is two forwards.
            costs=(tokens + 2 * np.asarray(work.trained.tokens)).astype(np.float64),
            reference=reference,
            truncated=np.asarray(pairs.taken.any(axis=1)),
            tokens_per_microbatch=self.tokens_per_microbatch,
            processes=processes,
            process=process,
        )


def laid_out_scores(recipe: Recipe) -> tuple[Score, ...]:
    """What a training batch of this recipe lays out."""
    return recipe.conditioning.laid_out_scores(with_plain_chosen=recipe.objective.needs_plain_chosen)
