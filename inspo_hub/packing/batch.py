"""A packed batch: what a model reads, and which positions predict which tokens of each score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from inspo_hub.attention.layout import TreeLayout
from inspo_hub.views import Score


@dataclass(frozen=True, kw_only=True)
class ScoredTokens:
    """One score's tokens, pair by pair: which position predicts them, what they are, how many each pair has."""

    positions: Int[Tensor, " tokens"]
    """Index into the batch's tokens of the position whose hidden state predicts the token."""
    targets: Int[Tensor, " tokens"]
    lengths: Int[Tensor, " pairs"]
    counts: tuple[int, ...]
    """`lengths` as the host knows them."""

    def to(self, device: torch.device | str) -> ScoredTokens:
        names = ("positions", "targets", "lengths")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True, kw_only=True)
class PackedContext:
    """A row that is read without gradient before the batch's own, whose paths go through it; see `packing.stopped`."""

    input_ids: Int[Tensor, "rows columns"]
    position_ids: Int[Tensor, "rows columns"]
    layout: TreeLayout
    scores: tuple[Score, ...]
    """Scores whose positions are in this row."""
    stopped: Int[Tensor, " stopped"]
    """Tokens of the batch's own row that belong to the context."""

    def to(self, device: torch.device | str) -> PackedContext:
        names = ("input_ids", "position_ids", "stopped")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return replace(self, layout=self.layout.to(device), **moved)


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Pairs as a model reads them: one row without padding (tree), or rectangles of rows of similar length (flat)."""

    input_ids: Int[Tensor, "1 tokens"]
    position_ids: Int[Tensor, "1 tokens"]
    """Positions along each path; 0 in padding."""
    rectangles: tuple[tuple[int, int], ...]
    """Flat only: rows and columns of what the tokens are, one rectangle after the other; a path in each row, padded on
    the right, where nothing of a causal model sees it."""
    layout: TreeLayout | None
    """Tree only: who sees whom."""
    scored: Mapping[Score, ScoredTokens]
    chosen_lengths: Int[Tensor, " pairs"]
    rejected_lengths: Int[Tensor, " pairs"]
    row_ids: tuple[str, ...]
    tokens: int
    """Tokens laid out, padding not counted."""
    longest_path: int
    """Positions of the longest path: what a model's context window must hold."""
    context: PackedContext | None = None
    """Only where the gradient stops at the alternative: what is read first."""

    @property
    def scores(self) -> tuple[Score, ...]:
        return tuple(self.scored)

    @property
    def untrained(self) -> tuple[Score, ...]:
        """Scores that never have a gradient: those read in the context's own row."""
        return () if self.context is None else self.context.scores

    @property
    def pairs(self) -> int:
        return len(self.row_ids)

    def to(self, device: torch.device | str) -> PackedBatch:
        """The batch on a device; what only the host reads stays there."""
        names = ("input_ids", "position_ids", "chosen_lengths", "rejected_lengths")
        return replace(
            self,
            **{name: getattr(self, name).to(device, non_blocking=True) for name in names},
            layout=None if self.layout is None else self.layout.to(device),
            context=None if self.context is None else self.context.to(device),
            scored={score: tokens.to(device) for score, tokens in self.scored.items()},
        )
