"""Token ids of many rows in Arrow buffers (memory-mapped where they come from a file), and the pairs cut from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from inspo_hub.pairs.overlong import NO_LIMIT
from inspo_hub.pairs.types import PreferencePair


class TokenColumn:
    """One Arrow column of id lists, read row by row without copying the rest."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._values: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        for chunk in column.chunks:
            self._offsets.append(chunk.offsets.to_numpy(zero_copy_only=False))
            self._values.append(chunk.values.to_numpy(zero_copy_only=False))
        rows = [0, *(len(offsets) - 1 for offsets in self._offsets)]
        self._starts = np.cumsum(rows)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Int[np.ndarray, " tokens"]:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        local = row - int(self._starts[chunk])
        offsets = self._offsets[chunk]
        return self._values[chunk][offsets[local] : offsets[local + 1]]

    def lengths(self) -> Int[np.ndarray, " rows"]:
        parts = [np.diff(offsets) for offsets in self._offsets]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def first_ids(self) -> Int[np.ndarray, " rows"]:
        """The first id of each row; -2 where a row has none."""
        out = np.full(len(self), -2, np.int64)
        for start, offsets, values in zip(self._starts[:-1], self._offsets, self._values, strict=True):
            filled = np.flatnonzero(np.diff(offsets) > 0)
            out[start + filled] = values[offsets[:-1][filled]]
        return out

    def max_id(self) -> int:
        """The largest id of all rows; -1 where there is none."""
        return max((int(values.max()) for values in self._values if len(values)), default=-1)


@dataclass(frozen=True)
class TokenTable:
    """All rows of one source, valid or not, in file order."""

    name: str
    prompt: TokenColumn
    chosen: TokenColumn
    rejected: TokenColumn
    problem: Sequence[str | None]
    detail: Sequence[str | None]
    row: Int[np.ndarray, " rows"]
    prompt_hash: np.ndarray
    near_hash: np.ndarray
    chosen_hash: np.ndarray
    rejected_hash: np.ndarray
    merged: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, name: str, table: pa.Table) -> TokenTable:
        return cls(
            name=name,
            prompt=TokenColumn(table.column("prompt")),
            chosen=TokenColumn(table.column("chosen")),
            rejected=TokenColumn(table.column("rejected")),
            problem=table.column("problem").to_pylist(),
            detail=table.column("detail").to_pylist(),
            row=table.column("row").to_numpy(),
            prompt_hash=table.column("prompt_hash").to_numpy(),
            near_hash=table.column("near_hash").to_numpy(),
            chosen_hash=table.column("chosen_hash").to_numpy(),
            rejected_hash=table.column("rejected_hash").to_numpy(),
            merged=table.column("merged").to_numpy(),
        )

    def __len__(self) -> int:
        return len(self.row)

    def row_id(self, index: int) -> str:
        return f"{self.name}/{int(self.row[index])}"

    def lengths(self) -> Int[np.ndarray, "rows 3"]:
        return np.stack([self.prompt.lengths(), self.chosen.lengths(), self.rejected.lengths()], axis=1)


class PairSet(Sequence[PreferencePair]):
    """Pairs in their recorded order; ids are cut out of the token tables when a pair is asked for."""

    def __init__(
        self,
        tables: Sequence[TokenTable],
        *,
        table: Int[np.ndarray, " pairs"],
        index: Int[np.ndarray, " pairs"],
        lengths: Int[np.ndarray, "pairs 3"],
        max_alternative: Int[np.ndarray, " pairs"],
        taken: Int[np.ndarray, "pairs 4"],
        has_bos: Bool[np.ndarray, " pairs"],
    ) -> None:
        self._tables = tuple(tables)
        self._table, self._index, self._has_bos = table, index, has_bos
        self.lengths = lengths
        """Prompt, chosen and rejected tokens of each pair."""
        self.max_alternative = max_alternative
        """The alternative's limit in each pair; the largest int32 where there is none."""
        self.taken = taken
        """Tokens taken from prompt, chosen, rejected and both alternatives of each pair."""

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> PreferencePair: ...
    @overload
    def __getitem__(self, index: slice) -> PairSet: ...
    def __getitem__(self, index: Any) -> PreferencePair | PairSet:
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        index = int(index) % len(self)
        prompt, chosen, rejected = self.arrays(index)
        limit = int(self.max_alternative[index])
        return PreferencePair(
            prompt=prompt.tolist(),
            chosen=chosen.tolist(),
            rejected=rejected.tolist(),
            row_id=self.row_id(index),
            max_alternative_tokens=None if limit == NO_LIMIT else limit,
            truncated_tokens=int(self.taken[index].sum()),
        )

    def __iter__(self) -> Iterator[PreferencePair]:
        return (self[index] for index in range(len(self)))

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prompt, chosen and rejected ids of one pair, int32; views of the buffers unless a prompt was cut."""
        table, row = self._tables[self._table[index]], int(self._index[index])
        prompt, chosen, rejected = (int(count) for count in self.lengths[index])
        return (
            _keep_newest(table.prompt[row], prompt, has_bos=bool(self._has_bos[index])),
            table.chosen[row][:chosen],
            table.rejected[row][:rejected],
        )

    def row_id(self, index: int) -> str:
        """The row's name, without reading its tokens."""
        return self._tables[self._table[index]].row_id(int(self._index[index]))

    def index_of(self, row_id: str) -> int:
        """The position of the row of this name; -1 where it is not among the pairs."""
        name, _, row = row_id.rpartition("/")
        for number, table in enumerate(self._tables):
            if table.name == name and row.isdigit():
                found = np.flatnonzero((self._table == number) & (self.column("row") == int(row)))
                return int(found[0]) if len(found) else -1
        return -1

    def subset(self, chosen: Int[np.ndarray, " kept"]) -> PairSet:
        """The pairs at these positions, in this order."""
        return PairSet(
            self._tables,
            table=self._table[chosen],
            index=self._index[chosen],
            lengths=self.lengths[chosen],
            max_alternative=self.max_alternative[chosen],
            taken=self.taken[chosen],
            has_bos=self._has_bos[chosen],
        )

    def source_of(self) -> Int[np.ndarray, " pairs"]:
        """The number of the source that each pair comes from."""
        return self._table

    def max_id(self) -> int:
        """The largest token id of the tables behind these pairs; -1 where there is none."""
        columns = [column for table in self._tables for column in (table.prompt, table.chosen, table.rejected)]
        return max((column.max_id() for column in columns), default=-1)

    def column(self, name: str) -> np.ndarray:
        """A per-row array of the token tables (`row`, `prompt_hash`, `merged`, …), in the order of the pairs."""
        out = np.zeros(len(self), dtype=getattr(self._tables[0], name).dtype if self._tables else np.int64)
        for number, table in enumerate(self._tables):
            mine = self._table == number
            out[mine] = getattr(table, name)[self._index[mine]]
        return out


def _keep_newest(ids: Int[np.ndarray, " tokens"], count: int, *, has_bos: bool) -> Int[np.ndarray, " kept"]:
    """The last `count` tokens of a prompt; its BOS stays in front."""
    if count >= len(ids):
        return ids
    if has_bos:
        return np.concatenate([ids[:1], ids[len(ids) - count + 1 :]])
    return ids[len(ids) - count :]
