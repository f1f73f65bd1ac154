"""Resumable checkpoints on a branch of a repository: published with a manifest, found, checked, downloaded."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.client import DEFAULT_PATIENCE, HubFailure, Patience, api, call, resolution_error
from inspo_hub.hub.fetch import fetch_files
from inspo_hub.hub.files import PICKLE_SUFFIXES
from inspo_hub.hub.resolve import list_files
from inspo_hub.hub.types import FileHash, Pinned, RepoFile

log = logging.getLogger(__name__)

FOLDER = "last-checkpoint"
MANIFEST = f"{FOLDER}/published.json"
_FORMAT = 1
_COMMITS_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class HubCheckpoint:
    """A whole checkpoint on the Hub: the commit, the step, and its files with the paths they have in the commit."""

    pinned: Pinned
    step: int
    files: tuple[RepoFile, ...]


def manifest(step: int, files: Mapping[str, FileHash]) -> bytes:
    """The file that says, in the same commit as a checkpoint, what all of it is. `files`: path in repo -> hashes."""
    listed = {
        path: {"size": hashes.size, "sha256": hashes.sha256, "blob_id": hashes.blob_id}
        for path, hashes in files.items()
    }
    text = json.dumps({"format": _FORMAT, "step": step, "files": listed}, indent=1, sort_keys=True)
    return (text + "\n").encode()


def latest_checkpoint(
    repo_id: str, branch: str = "checkpoints", *, patience: Patience = DEFAULT_PATIENCE
) -> HubCheckpoint | None:
    """The newest whole checkpoint of a branch; None where the branch or the repository has none.

    A commit whose files are not exactly those of its manifest is never used: an older one is.
    """
    try:
        commits = call(lambda: api().list_repo_commits(repo_id, revision=branch), patience=patience)
    except HubFailure as failure:
        if failure.fault.code == "RevisionNotFound":
            return None
        raise resolution_error(failure.fault, kind="model", repo_id=repo_id, doing="looking for checkpoints") from None
    for commit in commits[:_COMMITS_LOOKED_AT]:
        pinned = Pinned("model", repo_id, branch, commit.commit_id, None)
        found = _whole_checkpoint(pinned, patience)
        if found is not None:
            return found
        log.warning("%s holds no whole checkpoint; looking at the commit before", pinned)
    return None


def _whole_checkpoint(pinned: Pinned, patience: Patience) -> HubCheckpoint | None:
    """The checkpoint of one commit, if its manifest is there and lists just what the Hub lists, hash by hash."""
    tree = {file.path: file for file in list_files(pinned) if file.path.startswith(f"{FOLDER}/")}
    if MANIFEST not in tree:
        return None
    folder = fetch_files(pinned, [tree[MANIFEST]], patience)
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        step, listed = int(said["step"]), {path: FileHash(**hashes) for path, hashes in said["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s: %s cannot be read", pinned, MANIFEST)
        return None
    present = {path: file for path, file in tree.items() if path != MANIFEST}
    if said.get("format") != _FORMAT or not listed or set(listed) != set(present):
        return None
    if not all(hashes.matches(present[path]) for path, hashes in listed.items()):
        return None
    return HubCheckpoint(pinned, step, tuple(present[path] for path in sorted(present)))


def download_checkpoint(checkpoint: HubCheckpoint, target: Path, *, patience: Patience = DEFAULT_PATIENCE) -> Path:
    """Puts a checkpoint into the folder `target`, which appears whole or not at all; every file is checked by hash."""
    pickled = [file.path for file in checkpoint.files if file.path.endswith(PICKLE_SUFFIXES)]
    if pickled:
        raise ResolutionError(
            f"the checkpoint holds pickles: {', '.join(pickled[:3])}",
            where=f"model {checkpoint.pinned}",
            expected="safetensors and JSON only; a pickle can run code when it is loaded",
            fix="resume from a checkpoint on disk, or train anew with --resume none",
        )
    if target.exists():
        raise ResolutionError(
            "the folder is there already",
            where=str(target),
            expected="a folder that does not exist, for a checkpoint from the Hub",
            fix="move it away, or resume from it with --resume auto",
        )
    folder = fetch_files(checkpoint.pinned, checkpoint.files, patience)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for file in checkpoint.files:
        destination = partial / file.path.removeprefix(f"{FOLDER}/")
        destination.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy((folder / file.path).resolve(), destination)
    os.replace(partial, target)
    return target


def link_or_copy(source: Path, destination: Path) -> bool:
    """Hard-links a file, or copies it where the file system cannot; whether it was linked."""
    try:
        os.link(source, destination)
    except OSError as error:
        log.debug("copying %s instead of linking it: %s", source.name, error)
        shutil.copy2(source, destination)
        return False
    return True
