"""A full disk, however the library that met it says so, as one error that tells what to do."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inspo_hub.errors import InspoError, TrainingError

# EFBIG: a limit on the size of a file, by a shell's `ulimit -f` or a file system that knows no larger ones.
_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What libraries that write by themselves say: safetensors passes the number on in words, torch's zip writer nothing.
_TEXTS = (
    *(f"os error {number}" for number in sorted(_ERRNOS)),
    "PytorchStreamWriter failed writing file",
    "unexpected pos",
)


@contextmanager
def full_disk_told(output: Path) -> Iterator[None]:
    """Turns the errors of a full disk into a TrainingError while the block runs; all others pass.

    Raises:
        TrainingError: nothing could be written any more; the last whole checkpoint is what a next start uses.
    """
    try:
        yield
    except InspoError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise TrainingError(
            f"nothing more can be written: {_first_line(error)}",
            where=str(output),
            expected=f"room for the output and the caches; {_free(output)} free in the output's file system",
            fix="free some space, then run the same command: it goes on from the last whole checkpoint",
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, means that there is no more room."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _ERRNOS:
            return True
        if isinstance(seen, sqlite3.Error) and getattr(seen, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        if any(text in str(seen) for text in _TEXTS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _free(output: Path) -> str:
    there = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB"
