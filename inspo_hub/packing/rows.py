"""All pairs' paths as the rows of one batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from inspo_hub.attention.layout import Segment, TreeLayout, lay_out, position_ids
from inspo_hub.packing.batch import PackedBatch, PackedContext, ScoredTokens
from inspo_hub.packing.paths import PLAIN, Layout, PairLayout, lay_out_pair, scores_of
from inspo_hub.packing.stopped import split
from inspo_hub.views import AlternativeGradient, Score

if TYPE_CHECKING:
    from inspo_hub.conditioning import Conditioning
    from inspo_hub.pairs import PreferencePair

PADDED_SHARE, PADDED_TOKENS = 1 / 8, 16
"""How much of a flat row may be padding, as a share of its columns or in tokens: less makes more and smaller calls."""


def pack_pairs(
    pairs: Sequence[PreferencePair],
    conditioning: str | Conditioning | Sequence[Score],
    *,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
    layout: Layout = "tree",
    alternative_gradient: AlternativeGradient = "full",
    one_rectangle: bool = False,
) -> PackedBatch:
    """Pack pairs so that one forward gives every score that a conditioning needs.

    Args:
        conditioning: a name of `CONDITIONINGS`, a conditioning, or the scores themselves.
        separator: tokens between an alternative and the response that follows it; never scored.
        max_alternative_tokens: a longer alternative keeps its first tokens and its last one, its end of turn.
        layout: `tree` for models that take tree attention, `flat` for all others.
        alternative_gradient: `stopped` lays prompts and alternatives out apart, to be read without gradient; tree only.
        one_rectangle: flat only: all paths padded to the longest, so that a batch is one call of the model whatever is
            in it; for engines whose processes must call it equally often.
    """
    assert pairs, "a batch has at least one pair"
    scores = scores_of(conditioning)
    flat, stops = layout == "flat", alternative_gradient == "stopped"
    laid_out = [lay_out_pair(pair, scores, list(separator), max_alternative_tokens, flat=flat) for pair in pairs]
    if stops:
        assert not flat, "the gradient can stop in tree packing only"
        rows, context, scored = _stopped_rows(pairs, laid_out, scores)
    else:
        rows, context = _flat_rows(laid_out, one=one_rectangle) if flat else _tree_row(laid_out), None
        scored = {score: _scored_tokens(laid_out, score, rows.starts) for score in scores}
    return PackedBatch(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        rectangles=rows.rectangles,
        layout=rows.layout,
        context=context,
        scored=scored,
        chosen_lengths=torch.tensor([len(pair.chosen) for pair in pairs]),
        rejected_lengths=torch.tensor([len(pair.rejected) for pair in pairs]),
        row_ids=tuple(pair.row_id for pair in pairs),
        tokens=rows.tokens + (0 if context is None else context.layout.tokens),
        longest_path=int(max(each.position_ids.max() for each in (rows, context) if each is not None)) + 1,
    )


def packed_tokens(
    pair: PreferencePair,
    conditioning: str | Conditioning | Sequence[Score],
    *,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
    layout: Layout = "tree",
    alternative_gradient: AlternativeGradient = "full",
) -> int:
    """Tokens that `pack_pairs` lays out for a pair, padding not counted."""
    scores, flat = scores_of(conditioning), layout == "flat"
    laid_out = lay_out_pair(pair, scores, list(separator), max_alternative_tokens, flat=flat)
    return split(laid_out, len(pair.prompt)).tokens if alternative_gradient == "stopped" else laid_out.tokens


@dataclass(frozen=True, kw_only=True)
class _Rows:
    input_ids: Int[Tensor, "1 tokens"]
    position_ids: Int[Tensor, "1 tokens"]
    layout: TreeLayout | None
    starts: list[list[int]]
    """For each pair and run, at which of the row's tokens it starts."""
    tokens: int
    """Without padding."""
    rectangles: tuple[tuple[int, int], ...] = ()


def _stopped_rows(
    pairs: Sequence[PreferencePair], laid_out: Sequence[PairLayout], scores: Sequence[Score]
) -> tuple[_Rows, PackedContext, dict[Score, ScoredTokens]]:
    """The row of responses that are scored given an alternative, the row of what they are given, and both's scores."""
    parts = [split(each, len(pair.prompt)) for pair, each in zip(pairs, laid_out, strict=True)]
    contexts, targets = [part.context for part in parts], [part.targets for part in parts]
    context = _tree_row(contexts)
    first_tokens = [starts[0] for starts in context.starts]
    rows = _tree_row(targets, first_tokens, before=context.tokens)
    plain = tuple(score for score in scores if score in PLAIN)
    scored = {
        score: _scored_tokens(contexts, score, context.starts)
        if score in plain
        else _scored_tokens(targets, score, rows.starts)
        for score in scores
    }
    assert context.layout is not None
    packed = PackedContext(
        input_ids=context.input_ids,
        position_ids=context.position_ids,
        layout=context.layout,
        scores=plain,
        stopped=torch.tensor([start for starts in rows.starts for start in starts]),
    )
    return rows, packed, scored


def _tree_row(pairs: Sequence[PairLayout], bases: Sequence[int] | None = None, *, before: int = 0) -> _Rows:
    """All runs of all pairs in one row, with their contexts counted from the row's first token.

    Args:
        bases: for each pair, where the tokens that its contexts are ranges of start; None: where the pair itself does.
        before: tokens of the row that contexts are ranges of, where it is another one.
    """
    segments: list[Segment] = []
    starts: list[list[int]] = []
    tokens: list[int] = []
    for number, pair in enumerate(pairs):
        base = len(tokens) if bases is None else bases[number]
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
        layout=lay_out(segments, before=before),
        starts=starts,
        tokens=len(tokens),
    )


def _flat_rows(pairs: Sequence[PairLayout], *, one: bool) -> _Rows:
    """A row per run, in rectangles of similar lengths; padded on the right, where a causal model sees nothing of it."""
    runs = [(number, place, run.tokens) for number, pair in enumerate(pairs) for place, run in enumerate(pair.runs)]
    runs.sort(key=lambda run: -len(run[2]))
    starts = [[0] * len(pair.runs) for pair in pairs]
    input_ids: list[int] = []
    position_ids: list[int] = []
    rectangles = _rectangles([len(tokens) for *_, tokens in runs], one=one)
    rows = iter(runs)
    for height, columns in rectangles:
        for number, place, tokens in itertools.islice(rows, height):
            starts[number][place] = len(input_ids)
            padding = [0] * (columns - len(tokens))
            input_ids += tokens + padding
            position_ids += [*range(len(tokens)), *padding]
    return _Rows(
        input_ids=torch.tensor([input_ids]),
        position_ids=torch.tensor([position_ids]),
        layout=None,
        starts=starts,
        tokens=sum(pair.tokens for pair in pairs),
        rectangles=rectangles,
    )


def _rectangles(lengths: Sequence[int], *, one: bool) -> tuple[tuple[int, int], ...]:
    """Rows and columns of rectangles that hold rows of these lengths, which descend; little of each is padding."""
    if one:
        return ((len(lengths), lengths[0]),)
    found: list[tuple[int, int]] = []
    for length in lengths:
        rows, columns = found[-1] if found else (0, 0)
        if rows and columns - length <= max(columns * PADDED_SHARE, PADDED_TOKENS):
            found[-1] = rows + 1, columns
        else:
            found.append((1, length))
    return tuple(found)


def _scored_tokens(pairs: Sequence[PairLayout], score: Score, starts: Sequence[Sequence[int]]) -> ScoredTokens:
    """One score's tokens in the rows."""
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
