"""Sources -> `datasets.Dataset`s of raw rows, from files that are already here. The only reader of data sets.

`load_dataset(hub_id, revision=…)` is never called: with the Hub out of reach it may return another revision's rows.
The Hub's data sets arrive as snapshot folders, which `datasets` reads like any folder, with `configs:` of its README.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.pairs.types import PairSource

if TYPE_CHECKING:
    from datasets import Dataset

_BUILDERS = {"jsonl": "json", "json": "json", "ndjson": "json", "parquet": "parquet", "arrow": "arrow", "csv": "csv"}
_COMPRESSIONS = ("gz", "zst", "bz2", "xz")
_REQUIRED = ("chosen", "rejected")
_OPTIONAL = ("prompt", "tools", "chat_template_kwargs")
_LIKELY_PROMPTS = ("instruction", "question", "query", "input", "user")


def load_source(source: PairSource, content: str) -> Dataset:
    """The source's rows with our column names, at most `limit` of them, not yet tokenised.

    Args:
        content: its `content_key`. What `datasets` keeps of it lies in a folder of that name: its own caches go by path
            and modification time, and would hand out yesterday's rows of a file that was replaced within its time.
    """
    import datasets

    rows = _load(source, cache_folder() / content)
    if not isinstance(rows, datasets.Dataset):
        raise DataError(f"split {source.split!r} names several splits", where=source.id, fix="name one split")
    if source.limit is not None:
        rows = rows.select(range(min(source.limit, len(rows))))
    if not len(rows):
        raise _no_rows(source)
    return our_columns(rows, source)


def load_rows(source: PairSource) -> list[dict[str, Any]]:
    """Every column of the source's rows as plain values: for prompt sets, which are small."""
    import datasets

    rows = _load(source, cache_folder() / content_key(source))
    if not isinstance(rows, datasets.Dataset) or not len(rows):
        raise _no_rows(source)
    return list(rows)


def _no_rows(source: PairSource) -> DataError:
    return DataError("the data set has no rows", where=source.name, fix="choose another split, or raise limit")


def _load(source: PairSource, cache: Path) -> Dataset:
    import datasets
    from datasets.exceptions import DatasetsError

    path = Path(source.local_path or source.id).expanduser()
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            return _from_disk(path, source)
        with quiet_progress():
            if path.is_dir():
                return datasets.load_dataset(str(path), source.config, split=source.split, cache_dir=str(cache))
            files = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
            if not files:
                raise ResolutionError(
                    f"no file or folder {str(path)!r}",
                    where=source.id,
                    expected="a Hub data set that was downloaded, or a file, folder or glob on this machine",
                    fix="check the path; relative paths start at the folder of the recipe",
                )
            kind = _builder(files, source)
            base = source.split.split("[")[0]
            data_files = {base: files}
            return datasets.load_dataset(kind, data_files=data_files, split=source.split, cache_dir=str(cache))
    except StopIteration as error:  # what datasets makes of an empty jsonl file
        raise _no_rows(source) from error
    except (DatasetsError, ValueError, OSError, KeyError) as error:
        if disk_is_full(error):
            raise full_disk(source) from error
        raise DataError(
            f"the data set cannot be read: {_last_cause(error)}",
            where=f"{source.id}, config {source.config}, split {source.split}",
            expected="jsonl, parquet, arrow or csv files that `datasets` reads, and a split that exists",
            fix="check config and split, and that every row has the same columns and types",
        ) from error


def cache_folder() -> Path:
    """Where `datasets` keeps its caches; ours lie in a folder of their own."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "inspo_hub"


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that no space is left."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in (errno.ENOSPC, errno.EDQUOT) or "disk space" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk(source: PairSource) -> ResolutionError:
    """The message for a disk that has no room for the token ids."""
    return ResolutionError(
        f"no space is left for the rows of {source.name}",
        where=str(cache_folder()),
        fix="free some space, or set HF_DATASETS_CACHE to a folder on another disk",
    )


def _from_disk(path: Path, source: PairSource) -> Dataset:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except IndexError as error:  # what datasets makes of a saved data set without rows
        raise _no_rows(source) from error
    if isinstance(loaded, datasets.Dataset):
        return loaded
    return loaded[source.split]


def _builder(files: list[str], source: PairSource) -> str:
    kinds = set()
    for file in files:
        parts = Path(file).name.lower().split(".")
        extension = parts[-2] if parts[-1] in _COMPRESSIONS and len(parts) > 2 else parts[-1]
        kinds.add(_BUILDERS.get(extension, f".{extension}"))
    if len(kinds) > 1 or not kinds <= set(_BUILDERS.values()):
        raise DataError(
            f"files of the kinds {sorted(kinds)}",
            where=source.id,
            expected=f"files of one kind: {', '.join(_BUILDERS)}",
            fix="name the files with a glob, for example data/*.jsonl",
        )
    return kinds.pop()


def _last_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".split("\n")[0]


def our_columns(rows: Dataset, source: PairSource) -> Dataset:
    """Renames the mapped columns to ours and leaves the others out."""
    there = rows.column_names
    _refuse_images(rows, source)
    ours: dict[str, str] = {name: name for name in (*_REQUIRED, *_OPTIONAL) if name in there}
    for name, theirs in source.columns.items():
        if name not in (*_REQUIRED, *_OPTIONAL, "system"):
            raise DataError(
                f"unknown column role {name!r}",
                where=f"{source.id}, columns",
                expected=f"one of {', '.join((*_REQUIRED, *_OPTIONAL, 'system'))}",
                fix="write columns as `ours: theirs`, for example {prompt: instruction}",
            )
        ours.pop(name, None)
        if theirs is not None:
            ours[name] = theirs
    missing = sorted({*_REQUIRED} - {*ours}) + sorted({*ours.values()} - {*there})
    if len(set(ours.values())) < len(ours):
        raise DataError(
            f"one column has two roles: {ours}", where=f"{source.id}, columns", fix="name one column per role"
        )
    if missing:
        raise DataError(
            f"no column {', '.join(map(repr, missing))} among {', '.join(there)}",
            where=source.name,
            expected="columns chosen and rejected, and prompt unless they repeat it",
            fix="map them: columns: {prompt: …, chosen: …, rejected: …}",
        )
    _refuse_missing_prompt(rows, ours, source)
    rows = rows.select_columns([*ours.values()])
    return rows.rename_columns({theirs: name for name, theirs in ours.items() if name != theirs})


def _refuse_missing_prompt(rows: Dataset, ours: Mapping[str, str], source: PairSource) -> None:
    """Strings without a prompt are an implicit prompt only where they are transcripts; the first row tells."""
    if "prompt" in ours or not isinstance(rows[0][ours["chosen"]], str):
        return
    if "\n\nAssistant:" in rows[0][ours["chosen"]]:
        return
    likely = next((name for name in _LIKELY_PROMPTS if name in rows.column_names), None)
    raise DataError(
        "the rows have no prompt column, and chosen is a string in which no prompt can be told from the answer",
        where=source.name,
        expected='a prompt column, message lists, or transcripts with "\\n\\nAssistant:" turns',
        fix=f"map it: columns: {{prompt: {likely or '…'}}}",
    )


def _refuse_images(rows: Dataset, source: PairSource) -> None:
    import datasets

    media = [
        name
        for name, feature in rows.features.items()
        if isinstance(feature, (datasets.Image, datasets.Audio, datasets.Video)) or name in ("image", "images")
    ]
    if media:
        raise DataError(
            f"column {media[0]!r} holds images, sound or video",
            where=source.name,
            expected="text: this trainer reads no other input",
            fix="choose a text data set; a row's image would silently be left out",
        )


def content_key(source: PairSource) -> str:
    """sha256 over the bytes of the files that the source may read, with how they are read."""
    path = Path(source.local_path or source.id).expanduser()
    how = repr((source.config, source.split, sorted(source.columns.items()), source.limit))
    if path.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", path.name):  # named by its commit
        return _digest(source.id, path.name, how).hexdigest()[:40]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and ".git" not in file.parts)
    else:
        files = [
            Path(name) for name in ([str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True)))
        ]
    digest = _digest(how)
    for file in files:
        digest.update(f"{file.name} {os.path.getsize(file)}\n".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:40]


def _digest(*parts: str) -> hashlib._Hash:
    return hashlib.sha256("\0".join(parts).encode())


@contextmanager
def quiet_progress() -> Iterator[None]:
    """datasets' progress bars only where somebody looks at a terminal."""
    import sys

    import datasets

    if sys.stderr.isatty() or not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
