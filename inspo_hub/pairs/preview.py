"""Pairs as the model will see them: decoded segments of every path, what is scored, and lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from inspo_hub.pairs.types import PreferencePair
from inspo_hub.views import SCORES, Score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SegmentKind = Literal["prompt", "alternative", "separator", "target"]


@dataclass(frozen=True)
class PreviewSegment:
    """A run of tokens of one path; only a target's tokens are scored."""

    kind: SegmentKind
    text: str
    token_ids: tuple[int, ...]

    @property
    def scored(self) -> bool:
        return self.kind == "target"


@dataclass(frozen=True)
class PreviewPath:
    """One score of a pair: the sequence from prompt to target."""

    score: Score
    segments: tuple[PreviewSegment, ...]

    @property
    def tokens(self) -> int:
        return sum(len(segment.token_ids) for segment in self.segments)


@dataclass(frozen=True)
class PreviewRow:
    """One pair with the paths that score it."""

    row_id: str
    paths: tuple[PreviewPath, ...]
    truncated_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what is scored is spelt out per segment."""
        fields = asdict(self)
        for path, shown in zip(fields["paths"], self.paths, strict=True):
            path["tokens"] = shown.tokens
            for segment, part in zip(path["segments"], shown.segments, strict=True):
                segment["scored"] = part.scored
        return fields


def preview_rows(
    pairs: Iterable[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    scores: Sequence[Score] = SCORES,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
) -> list[PreviewRow]:
    """The paths of each pair that `scores` names, decoded segment by segment."""
    rows = []
    for pair in pairs:
        paths = [_path(pair, tokenizer, score, separator, max_alternative_tokens) for score in scores]
        rows.append(PreviewRow(pair.row_id, tuple(paths), pair.truncated_tokens))
    return rows


def _path(
    pair: PreferencePair,
    tokenizer: PreTrainedTokenizerBase,
    score: Score,
    separator: Sequence[int],
    max_alternative_tokens: int | None,
) -> PreviewPath:
    of_chosen = score.startswith("chosen")
    target, other = (pair.chosen, pair.rejected) if of_chosen else (pair.rejected, pair.chosen)
    parts: list[tuple[SegmentKind, Sequence[int]]] = [("prompt", pair.prompt)]
    if "_given_" in score:
        limits = [limit for limit in (max_alternative_tokens, pair.max_alternative_tokens) if limit is not None]
        parts += [("alternative", shortened(other, min(limits, default=len(other)))), ("separator", separator)]
    parts.append(("target", target))
    segments, before = [], list[int]()
    for kind, ids in parts:
        segments.append(PreviewSegment(kind, _decode_behind(tokenizer, before, ids), tuple(ids)))
        before.extend(ids)
    return PreviewPath(score, tuple(segments))


def shortened(alternative: Sequence[int], limit: int) -> Sequence[int]:
    """An alternative of at most `limit` tokens: its beginning, and its end token."""
    if len(alternative) <= limit:
        return alternative
    return [*alternative[: limit - 1], alternative[-1]]


def _decode_behind(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], ids: Sequence[int]) -> str:
    """What these ids add to the text of those before them; decoded alone, some tokenizers would drop a blank."""
    context = _decode(tokenizer, before)
    whole = _decode(tokenizer, [*before, *ids])
    return whole[len(context) :] if whole.startswith(context) else _decode(tokenizer, ids)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def render_preview(rows: Sequence[PreviewRow]) -> str:
    """The preview as plain text; scored segments are marked with `>`, context with `|`."""
    blocks = []
    for row in rows:
        cut = f", {row.truncated_tokens} tokens cut by the overlong policy" if row.truncated_tokens else ""
        lines = [f"{row.row_id}{cut}"]
        for path in row.paths:
            lines.append(f"  {path.score}: {path.tokens} tokens, {len(path.segments[-1].token_ids)} scored")
            for segment in path.segments:
                mark = ">" if segment.scored else "|"
                lines.append(f"    {segment.kind} ({len(segment.token_ids)})")
                lines += [f"    {mark} {line}" for line in segment.text.split("\n")]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
