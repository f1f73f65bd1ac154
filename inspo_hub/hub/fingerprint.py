"""The identity of local files: their hashes, computed once and remembered as long as the file is untouched."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.files import cache_dir, local_files, select, write_json
from inspo_hub.hub.types import FileHash, Kind

CHUNK = 8 * 1024 * 1024
SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was hashed may change again within one tick of the file system's
clock without a trace, so its hash is not remembered (git calls such files racy)."""


def file_hash(path: Path, *, remember: bool = True) -> FileHash:
    """SHA-256 and git blob SHA-1 of a file in one pass. Remembered by path, size, mtime, ctime and inode."""
    path = path.resolve(strict=True)
    before = _stamp(path)
    if not remember:
        return _hash_for_real(path, before[0])
    entry = cache_dir() / "fingerprints" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    remembered = _recall(entry, str(path), before)
    if remembered is not None:
        return remembered
    computed = _hash_for_real(path, before[0])
    if _stamp(path) != before:
        raise ResolutionError(
            "the file changed while it was read",
            where=str(path),
            expected="a file that nothing writes to",
            fix="run the same command again when the file is complete",
        )
    if time.time_ns() - max(before[1], before[2]) > SETTLED_NS:
        write_json(entry, {"path": str(path), "stamp": before, "sha256": computed.sha256, "blob_id": computed.blob_id})
    return computed


def bytes_hash(content: bytes) -> FileHash:
    """The hashes that the Hub would list for these bytes."""
    git = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    git.update(content)
    return FileHash(len(content), hashlib.sha256(content).hexdigest(), git.hexdigest())


def _hash_for_real(path: Path, size: int) -> FileHash:
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            git.update(chunk)
    return FileHash(size, sha256.hexdigest(), git.hexdigest())


def _stamp(path: Path) -> list[int]:
    """Size, mtime, ctime and inode: ctime moves even where a copy tool sets mtime back."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _recall(entry: Path, path: str, stamp: list[int]) -> FileHash | None:
    if not entry.is_file():
        return None
    try:
        stored = json.loads(entry.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
    if stored.get("path") != path or stored.get("stamp") != stamp:
        return None
    return FileHash(stamp[0], stored["sha256"], stored["blob_id"])


def local_fingerprint(path: Path, kind: Kind | None = None) -> dict[str, str]:
    """SHA-256 per file of a local folder or file. With a kind, of the files that we would use of such a repository."""
    if not path.exists():
        raise ResolutionError(
            "no such file or folder", where=str(path), expected="a path on this disk", fix="check the path"
        )
    names = local_files(path)
    if kind is not None and path.is_dir():
        names = select(kind, names)
    return {name: file_hash(path if path.is_file() else path / name).sha256 for name in names}


def digest(fingerprint: Mapping[str, str]) -> str:
    """One SHA-256 over a map of names to hashes, whatever its order."""
    return hashlib.sha256(json.dumps(dict(sorted(fingerprint.items()))).encode()).hexdigest()
