"""Rows of a data set on the Hub from parts of its files: parquet footers and row groups, stretches of jsonl."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.errors import DataError

if TYPE_CHECKING:
    from inspo_hub.recipe import DataSource

STRETCH = 2**18
"""Bytes of one look into a jsonl file."""
LOOKS = 8
"""Places of a split that rows are taken from: data sets are often sorted by where they come from."""
_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
DATA_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow", ".txt", ".gz", ".zst")


@dataclass(frozen=True)
class RawRows:
    """Rows as they stand in the files, and how many there are."""

    rows: Sequence[Mapping[str, Any]]
    total: int
    known: bool
    """False: the total was estimated from bytes."""


def rows_of_parts(pinned: hub.Pinned, source: DataSource, wanted: int) -> RawRows | None:
    """About `wanted` rows of the source's split, spread over it; None where only whole files can tell."""
    files = split_files(pinned, source.config, source.split)
    if files and all(file.path.endswith(".parquet") for file in files):
        found: RawRows | None = _parquet_rows(pinned, files, wanted, source.limit)
    elif files and all(file.path.endswith((".jsonl", ".ndjson")) for file in files):
        found = _jsonl_rows(pinned, files, wanted, source.limit)
    else:
        return None
    if found is None:
        return None
    total = found.total if source.limit is None else min(found.total, source.limit)
    return RawRows(found.rows[:wanted], total, found.known)


def split_files(pinned: hub.Pinned, config: str | None, split: str) -> list[hub.RepoFile]:
    """The files of a split, by the card's `configs`, else by the names of files and folders; [] where unclear."""
    files = [file for file in hub.list_files(pinned) if file.path.endswith(DATA_SUFFIXES)]
    configs = hub.metadata(pinned).card.get("configs")
    if isinstance(configs, list) and configs:
        patterns = _patterns(configs, config, split)
        return [file for file in files if any(_glob(pattern).fullmatch(file.path) for pattern in patterns)]
    if config is not None:
        return []
    names = names_of_split([file.path for file in files], split)
    return [file for file in files if file.path in names]


def names_of_split(paths: Sequence[str], split: str) -> list[str]:
    """The paths whose folders or names speak of the split; all of them where none speaks of any, for `train`."""
    if not re.fullmatch(r"\w+", split):
        return []
    by_split = {name: [path for path in paths if _speaks_of(path, aliases)] for name, aliases in _ALIASES.items()}
    if any(by_split.values()):
        return by_split.get(split, [path for path in paths if _speaks_of(path, (split,))])
    return list(paths) if split == "train" else []


def _patterns(configs: Sequence[Any], wanted: str | None, split: str) -> list[str]:
    """The `data_files` of one split of one configuration of a card."""
    by_name = {one.get("config_name", "default"): one for one in configs if isinstance(one, Mapping)}
    default = next((name for name, one in by_name.items() if one.get("default")), None)
    only = next(iter(by_name)) if len(by_name) == 1 else None
    chosen = by_name.get(wanted or default or ("default" if "default" in by_name else only or ""))
    if chosen is None or "data_files" not in chosen:
        return []
    found: list[str] = []
    for entry in _listed(chosen["data_files"]):
        if isinstance(entry, str):
            found += [entry] if split == "train" else []
        elif isinstance(entry, Mapping) and entry.get("split") == split:
            found += [str(path) for path in _listed(entry.get("path"))]
    prefix = str(chosen.get("data_dir") or "").strip("/")
    return [f"{prefix}/{pattern}" if prefix else pattern for pattern in found]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] if value is not None else []


def _glob(pattern: str) -> re.Pattern[str]:
    """`**` crosses folders, `*` does not; what else a pattern can say is taken as it stands."""
    parts = re.split(r"(\*\*/?|\*)", pattern.removeprefix("./"))
    return re.compile("".join({"**/": "(.*/)?", "**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts))


def _speaks_of(path: str, names: Iterable[str]) -> bool:
    words = re.split(r"[^a-zA-Z0-9]+", PurePosixPath(path).with_suffix("").as_posix().lower())
    return any(name in words for name in names)


def _parquet_rows(pinned: hub.Pinned, files: Sequence[hub.RepoFile], wanted: int, limit: int | None) -> RawRows:
    """Row counts from the footers, rows from the beginnings of some row groups, of which only these pages are read."""
    import pyarrow.parquet as pq

    opened = [
        pq.ParquetFile(hub.open_file(pinned, file.path, file.size), pre_buffer=False, buffer_size=hub.READ_AHEAD)
        for file in files
    ]
    total = sum(file.metadata.num_rows for file in opened)
    groups = [(file, group) for file in opened for group in range(file.num_row_groups)]
    if limit is not None:
        groups = _first_groups(groups, limit)
    chosen = [groups[place * len(groups) // min(LOOKS, len(groups))] for place in range(min(LOOKS, len(groups)))]
    rows: list[dict[str, Any]] = []
    for file, group in chosen:
        share = -(-wanted // len(chosen))
        batch = next(file.iter_batches(batch_size=share, row_groups=[group]), None)
        rows += batch.to_pylist() if batch is not None else []
    return RawRows(rows, total, known=True)


def _first_groups(groups: Sequence[tuple[Any, int]], limit: int) -> list[tuple[Any, int]]:
    """The row groups that hold the first `limit` rows."""
    kept, rows = [], 0
    for file, group in groups:
        if rows < limit:
            kept.append((file, group))
        rows += file.metadata.row_group(group).num_rows
    return kept


def _jsonl_rows(pinned: hub.Pinned, files: Sequence[hub.RepoFile], wanted: int, limit: int | None) -> RawRows | None:
    """Whole lines of some stretches; the rows of all files are estimated from their bytes. None: lines are too long."""
    size = sum(file.size for file in files)
    looks = 1 if limit is not None else LOOKS
    rows: list[dict[str, Any]] = []
    seen_lines = seen_bytes = 0
    for look in range(looks):
        file, start = _place(files, size * look // looks)
        lines = _whole_lines(pinned, file, start)
        seen_lines += len(lines)
        seen_bytes += sum(len(line) + 1 for line in lines)
        rows += [_row(line, f"{pinned}, {file.path}") for line in lines[: -(-wanted // looks)]]
    return RawRows(rows, round(size / seen_bytes * seen_lines), known=False) if rows else None


def _whole_lines(pinned: hub.Pinned, file: hub.RepoFile, start: int) -> list[bytes]:
    lines = hub.read_range(pinned, file.path, start, start + STRETCH).split(b"\n")
    inner = lines[1 if start else 0 : None if start + STRETCH >= file.size else -1]
    return [line for line in inner if line.strip()]


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"a line is no JSON: {error}", where=where, fix="choose another revision or file") from error
    if not isinstance(row, dict):
        raise DataError(f"a line holds {row!r:.40}, and no row", where=where, expected="one JSON object per line")
    return row


def _place(files: Sequence[hub.RepoFile], at: int) -> tuple[hub.RepoFile, int]:
    """The file, and the byte in it, at a byte of all files together."""
    for file in files:
        if at < file.size:
            return file, at
        at -= file.size
    return files[-1], 0
