"""Who sees whom in a packed row: segments, the key ranges of their context, and the tensors that kernels read.

A segment is a run of the row that a path passes through without a gap. It sees itself causally and every token of
its context, the ranges of the row that its path went through before; no token sees anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from inspo_hub.attention.context import ContextKeys


@dataclass(frozen=True, slots=True)
class Segment:
    """Queries `[start, stop)` of the row, after the ranges of `context` in the order of the path."""

    start: int
    stop: int
    context: tuple[tuple[int, int], ...] = ()

    @property
    def context_length(self) -> int:
        return sum(stop - start for start, stop in self.context)

    @property
    def last_context_token(self) -> int:
        return self.context[-1][1] - 1

    @property
    def longest_position(self) -> int:
        return self.context_length + self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class KeyGather:
    """A segment's keys side by side, for kernels that take queries and keys of different lengths (bottom-right causal).

    Everything is on the device but `longest` and `repeat_bounds`, which the host reads when it launches a kernel.
    """

    key_index: Int[Tensor, " keys"]
    """Row token of every gathered key: for each segment its context, then itself."""
    query_bounds: Int[Tensor, " bounds"]
    """Cumulative query lengths, int32 `(segments + 1,)`."""
    key_bounds: Int[Tensor, " bounds"]
    """Cumulative key lengths, int32 `(segments + 1,)`."""
    own_index: Int[Tensor, " tokens"]
    """Where in the gathered keys each row token stands as a member of its own segment."""
    repeat_row: Int[Tensor, " repeats"]
    """Row tokens that further segments see as context; within one level no token twice, so adding them is exact."""
    repeat_key: Int[Tensor, " repeats"]
    """The gathered keys that belong to `repeat_row`."""
    longest: Int[Tensor, " extremes"]
    """Longest segment and longest path, on the host."""
    repeat_bounds: Int[Tensor, " levels"]
    """Where the levels of `repeat_row` start and end, on the host."""

    def to(self, device: torch.device) -> KeyGather:
        on_host = {"longest": self.longest, "repeat_bounds": self.repeat_bounds}
        names = ("key_index", "query_bounds", "key_bounds", "own_index", "repeat_row", "repeat_key")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return KeyGather(**moved, **on_host)

    def tensors(self) -> list[Tensor]:
        """The fields in their order, as the operator takes them; `KeyGather.of` puts them together again."""
        return [getattr(self, name) for name in GATHER_FIELDS]

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> KeyGather:
        return KeyGather(**dict(zip(GATHER_FIELDS, tensors, strict=True)))


GATHER_FIELDS = tuple(field.name for field in fields(KeyGather))


@dataclass(frozen=True, kw_only=True)
class TreeLayout:
    """What travels through `model(...)` to the attention function; tensors only, so one compiled graph serves all."""

    plan: Int[Tensor, "blocks 5"]
    """On the host. One row per segment and key range: first and last query, first and last key, and how far the
    first query stands behind the first key along the path (0 where a segment sees itself)."""
    gather: KeyGather | None = None
    """Built when the layout moves to an accelerator."""
    writes: ContextKeys | None = None
    """Where each layer leaves its keys and values, for a row that sees this one as its context."""
    reads: ContextKeys | None = None
    """The keys and values of a context that was computed before; they stand in front of the row's own."""
    block_masks: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)
    """flex_attention's masks by window, built where that backend is used."""

    @property
    def tokens(self) -> int:
        return int(self.plan[-1, 1])

    @property
    def before(self) -> int:
        """Keys that stand in front of the row's own; 0 where the row is its own context."""
        return int(self.plan[-1, 2] - self.plan[-1, 0])

    def to(self, device: torch.device | str) -> TreeLayout:
        device = torch.device(device)
        if device.type == "cpu":
            return TreeLayout(plan=self.plan)
        gather = self.gather or gather_keys(segments_of(self.plan), before=self.before)
        return TreeLayout(plan=self.plan, gather=gather.to(device))

    def gather_tensors(self) -> list[Tensor]:
        return [] if self.gather is None else self.gather.tensors()


def lay_out(segments: Sequence[Segment], *, before: int = 0) -> TreeLayout:
    """The layout of a row's segments, which must follow each other without a gap.

    Args:
        before: keys of another row that stand in front; all contexts are ranges of them, and 0 where contexts are
            ranges of the row itself.
    """
    assert segments, "a row has at least one segment"
    rows: list[tuple[int, int, int, int, int]] = []
    position = 0
    for segment in segments:
        assert segment.start == position, f"segment starts at {segment.start}, the one before it ended at {position}"
        position = segment.stop
        behind = segment.context_length
        for start, stop in segment.context:
            assert 0 <= start < stop <= (before or segment.start), "a context lies before its segment"
            rows.append((segment.start, segment.stop, start, stop, behind))
            behind -= stop - start
        rows.append((segment.start, segment.stop, before + segment.start, before + segment.stop, 0))
    return TreeLayout(plan=torch.tensor(rows, dtype=torch.int64))


def segments_of(plan: Int[Tensor, "blocks 5"]) -> list[Segment]:
    """The segments that `lay_out` wrote into a plan."""
    rows = plan.tolist()
    segments = []
    for (start, stop), group in groupby(rows, key=lambda row: (row[0], row[1])):
        context = tuple((row[2], row[3]) for row in group if row[4] > 0)
        segments.append(Segment(start, stop, context))
    return segments


def position_ids(segments: Sequence[Segment]) -> Int[Tensor, " tokens"]:
    """Each token's position along its path."""
    return torch.cat([torch.arange(s.context_length, s.longest_position, dtype=torch.int64) for s in segments])


def gather_keys(segments: Sequence[Segment], *, before: int = 0) -> KeyGather:
    """The gather indices of a row's segments, on the host; `before` as in `lay_out`.

    Keys of another row get no gradient, so that nothing of them is repeated.
    """
    keys: list[Tensor] = []
    own: list[Tensor] = []
    levels: dict[int, list[tuple[int, int, int]]] = {}
    seen = [0] * segments[-1].stop
    query_bounds, key_bounds = [0], [0]
    for segment in segments:
        position = key_bounds[-1]
        for start, stop in segment.context:
            keys.append(torch.arange(start, stop))
            for first, last, level in () if before else _level_runs(seen, start, stop):
                levels.setdefault(level, []).append((first, last, position + first - start))
            position += stop - start
        keys.append(torch.arange(before + segment.start, before + segment.stop))
        own.append(torch.arange(position, position + segment.stop - segment.start))
        query_bounds.append(segment.stop)
        key_bounds.append(position + segment.stop - segment.start)
    repeat_row, repeat_key, repeat_bounds = _repeats(levels)
    longest_segment = max(s.stop - s.start for s in segments)
    return KeyGather(
        key_index=torch.cat(keys),
        query_bounds=torch.tensor(query_bounds, dtype=torch.int32),
        key_bounds=torch.tensor(key_bounds, dtype=torch.int32),
        own_index=torch.cat(own),
        repeat_row=repeat_row,
        repeat_key=repeat_key,
        longest=torch.tensor([longest_segment, max(s.longest_position for s in segments)]),
        repeat_bounds=repeat_bounds,
    )


def _level_runs(seen: list[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Runs of `[start, stop)` by how often each token was context before; counts this time in `seen`."""
    first = start
    for level, group in groupby(seen[start:stop]):
        last = first + sum(1 for _ in group)
        yield first, last, level
        first = last
    seen[start:stop] = [count + 1 for count in seen[start:stop]]


def _repeats(levels: dict[int, list[tuple[int, int, int]]]) -> tuple[Tensor, Tensor, Tensor]:
    rows, keys, bounds = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)], [0]
    for level in sorted(levels):
        for first, last, key in levels[level]:
            rows.append(torch.arange(first, last))
            keys.append(torch.arange(key, key + last - first))
        bounds.append(bounds[-1] + sum(last - first for first, last, _ in levels[level]))
    return torch.cat(rows), torch.cat(keys), torch.tensor(bounds)
