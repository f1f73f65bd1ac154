"""Checkpoints that are whole or not there: a manifest is written last, and only a folder that matches it is used."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

MANIFEST = "complete.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")


def write_json_atomically(path: Path, value: Any) -> None:
    """Writes JSON so that a reader, or a kill at any moment, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def seal(checkpoint: Path, training_key: dict[str, Any]) -> None:
    """Marks a checkpoint as whole: sizes of all its files, and what training it belongs to."""
    files = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json_atomically(checkpoint / MANIFEST, {"files": files, "training": training_key})


def read_manifest(checkpoint: Path) -> dict[str, Any] | None:
    """The manifest of a whole checkpoint; None where it is missing or a file is missing or has another size."""
    path = checkpoint / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
    for name, size in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file() or file.stat().st_size != size:
            return None
    return manifest


def step_of(checkpoint: Path) -> int:
    match = _NAME.match(checkpoint.name)
    assert match is not None, f"{checkpoint} is not a checkpoint folder"
    return int(match.group(1))


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), key=step_of)


def latest_complete(folder: Path) -> Path | None:
    """The newest whole checkpoint. All that are not whole are removed: newer ones that were never finished, so that
    nothing mistakes them, and older ones that a kill left half removed."""
    whole = None
    for checkpoint in list_checkpoints(folder):
        if read_manifest(checkpoint) is not None:
            whole = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return whole


def rotate(folder: Path, keep: int) -> None:
    """Removes the oldest whole checkpoints beyond `keep`; the manifest goes first, so a kill leaves no half one."""
    whole = [path for path in list_checkpoints(folder) if read_manifest(path) is not None]
    for checkpoint in whole[: max(0, len(whole) - keep)]:
        (checkpoint / MANIFEST).unlink()
        shutil.rmtree(checkpoint)
