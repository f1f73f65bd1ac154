"""All pairs' paths as the rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from inspo_hub.attention.layout import Segment, TreeLayout, lay_out, position_ids
from inspo_hub.packing.batch import PackedBatch, ScoredTokens
from inspo_hub.packing.paths import Layout, PairLayout, lay_out_pair, scores_of
from inspo_hub.views import Score

if TYPE_CHECKING:
    from inspo_hub.conditioning import Conditioning
    from inspo_hub.pairs import PreferencePair


def pack_pairs(
    pairs: Sequence[PreferencePair],
    conditioning: str | Conditioning | Sequence[Score],
    *,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
    layout: Layout = "tree",
) -> PackedBatch:
    """Pack pairs so that one forward gives every score that a conditioning needs.

    Args:
        conditioning: a name of `CONDITIONINGS`, a conditioning, or the scores themselves.
        separator: tokens between an alternative and the response that follows it; never scored.
        max_alternative_tokens: a longer alternative keeps its first tokens and its last one, its end of turn.
        layout: `tree` for models that take tree attention, `flat` for all others.
    """
    assert pairs, "a batch has at least one pair"
    scores = scores_of(conditioning)
    flat = layout == "flat"
    laid_out = [lay_out_pair(pair, scores, list(separator), max_alternative_tokens, flat=flat) for pair in pairs]
    rows = _flat_rows(laid_out) if flat else _tree_row(laid_out)
    return PackedBatch(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        attention_mask=rows.attention_mask,
        layout=rows.layout,
        scored={score: _scored_tokens(laid_out, score, rows.starts) for score in scores},
        chosen_lengths=torch.tensor([len(pair.chosen) for pair in pairs]),
        rejected_lengths=torch.tensor([len(pair.rejected) for pair in pairs]),
        row_ids=tuple(pair.row_id for pair in pairs),
        tokens=sum(pair.tokens for pair in laid_out),
        longest_path=int(rows.position_ids.max()) + 1,
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    input_ids: Int[Tensor, "rows columns"]
    position_ids: Int[Tensor, "rows columns"]
    attention_mask: Int[Tensor, "rows columns"] | None
    layout: TreeLayout | None
    starts: list[list[int]]
    """For each pair and run, where it starts in the flattened rows."""


def _tree_row(pairs: Sequence[PairLayout]) -> _Rows:
    """All runs of all pairs in one row, with their contexts counted from the row's first token."""
    segments: list[Segment] = []
    starts: list[list[int]] = []
    tokens: list[int] = []
    for pair in pairs:
        base = len(tokens)
        starts.append([])
        for run in pair.runs:
            start = len(tokens)
            tokens += run.tokens
            context = tuple((base + first, base + last) for first, last in run.context)
            segments.append(Segment(start, len(tokens), context))
            starts[-1].append(start)
    return _Rows(
        input_ids=torch.tensor([tokens]),
        position_ids=position_ids(segments)[None],
        attention_mask=None,
        layout=lay_out(segments),
        starts=starts,
    )


def _flat_rows(pairs: Sequence[PairLayout]) -> _Rows:
    """A row per run, padded on the right, where padding changes nothing for a causal model."""
    runs = [run.tokens for pair in pairs for run in pair.runs]
    columns = max(len(run) for run in runs)
    input_ids = torch.zeros(len(runs), columns, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for row, run in enumerate(runs):
        input_ids[row, : len(run)] = torch.tensor(run)
        attention_mask[row, : len(run)] = 1
    rows = iter(range(len(runs)))
    return _Rows(
        input_ids=input_ids,
        position_ids=torch.arange(columns).repeat(len(runs), 1) * attention_mask,
        attention_mask=attention_mask,
        layout=None,
        starts=[[next(rows) * columns for _ in pair.runs] for pair in pairs],
    )


def _scored_tokens(pairs: Sequence[PairLayout], score: Score, starts: Sequence[Sequence[int]]) -> ScoredTokens:
    """One score's tokens in the flattened rows."""
    positions: list[Tensor] = []
    targets: list[int] = []
    lengths: list[int] = []
    for pair, run_starts in zip(pairs, starts, strict=True):
        scored = pair.scored[score]
        start = run_starts[scored.run] + scored.first
        predicts = torch.arange(start - 1, start - 1 + len(scored.targets))
        if scored.first == 0:  # the run starts with the response: the last token of its context predicts the first
            predicts[0] = run_starts[0] + pair.runs[scored.run].context[-1][1] - 1
        positions.append(predicts)
        targets += scored.targets
        lengths.append(len(scored.targets))
    return ScoredTokens(
        positions=torch.cat(positions),
        targets=torch.tensor(targets),
        lengths=torch.tensor(lengths),
        counts=tuple(lengths),
    )
