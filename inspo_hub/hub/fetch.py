"""Brings pinned files onto this disk and checks every one against the Hub's hashes: the client itself does not."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.client import DEFAULT_PATIENCE, HubFailure, Patience, call, resolution_error
from inspo_hub.hub.files import Part, is_weight_file, local_files, require_safetensors, select
from inspo_hub.hub.fingerprint import digest, file_hash
from inspo_hub.hub.resolve import list_files
from inspo_hub.hub.types import Pinned, RepoFile

log = logging.getLogger(__name__)

RUN_FILES = ("recipe.yaml", "lock.json", "metrics.jsonl", "README.md")
"""What a published model says about the run that made it."""


def fetch(
    pinned: Pinned,
    part: Part = "all",
    *,
    patterns: Sequence[str] | None = None,
    code: bool = False,
    patience: Patience = DEFAULT_PATIENCE,
) -> Path:
    """A local folder with the pinned files, each equal to the hash that the Hub lists for it.

    Models: safetensors, configuration and tokenizer files, never pickles, Python files only with `code`; `part` leaves
    the weights out. Datasets: data files and README.md; `patterns` narrows them (`*` crosses folders, as on the Hub).
    A local path is returned as it is, after the same refusal of pickled weights.
    """
    if pinned.path is not None:
        if pinned.kind == "model" and part == "all":
            require_safetensors(local_files(pinned.path), where=str(pinned.path))
        return pinned.path
    return fetch_files(pinned, wanted_files(pinned, part, patterns=patterns, code=code), patience)


def fetch_files(pinned: Pinned, wanted: Sequence[RepoFile], patience: Patience = DEFAULT_PATIENCE) -> Path:
    """The snapshot folder with these files of a commit, each checked; a file that is wrong is fetched once more."""
    folder = _download(pinned, wanted, patience)
    broken = [file for file in wanted if not _is_good(folder / file.path, file)]
    if broken:
        log.warning("%s: %d downloaded file(s) differ from the Hub's hashes; once more", pinned, len(broken))
        for file in broken:
            _discard(folder / file.path)
        folder = _download(pinned, wanted, patience)
        broken = [file for file in broken if not _is_good(folder / file.path, file)]
    if broken:
        for file in broken:
            _discard(folder / file.path)
        raise ResolutionError(
            f"{', '.join(file.path for file in broken[:5])}: the downloaded bytes differ from the Hub's hash, twice",
            where=f"{pinned.kind} {pinned}",
            expected=f"SHA of {broken[0].path}: {broken[0].sha256 or broken[0].blob_id}",
            fix="check proxies and mirrors (HF_ENDPOINT) between this machine and the Hub, then run again",
        )
    return folder


def wanted_files(
    pinned: Pinned,
    part: Part = "all",
    *,
    patterns: Sequence[str] | None = None,
    code: bool = False,
) -> list[RepoFile]:
    """The files of a pinned commit that `fetch` downloads, with their sizes and hashes."""
    listed = {file.path: file for file in list_files(pinned)}
    if pinned.kind == "model" and part == "all":
        require_safetensors(listed, where=f"model {pinned}")
    names = select(pinned.kind, listed, part, code=code)
    if patterns is not None:
        names = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not names:
        raise ResolutionError(
            "the repository has no file that we can use" + (f" and that matches {list(patterns)}" if patterns else ""),
            where=f"{pinned.kind} {pinned}",
            expected="parquet, jsonl, json, csv or arrow files"
            if pinned.kind == "dataset"
            else "safetensors and configuration files",
            fix="check the id and revision; loading scripts and pickles are never run",
        )
    return [listed[name] for name in names]


def _download(pinned: Pinned, files: Sequence[RepoFile], patience: Patience) -> Path:
    from huggingface_hub import snapshot_download

    from inspo_hub.hub.client import api

    api()  # sets the time limits of the shared session
    names = [glob.escape(file.path) for file in files]
    try:
        folder = call(
            lambda: snapshot_download(
                pinned.id, repo_type=pinned.kind, revision=pinned.sha, allow_patterns=names, library_name="inspo_hub"
            ),
            patience=patience,
        )
    except HubFailure as failure:
        raise resolution_error(
            failure.fault, kind=pinned.kind, repo_id=pinned.id, doing="downloading its files", sha=pinned.sha
        ) from None
    return Path(folder)


def _is_good(path: Path, remote: RepoFile) -> bool:
    return path.is_file() and file_hash(path).matches(remote)


def _discard(path: Path) -> None:
    """Removes a bad file from the cache: the entry of the snapshot, and the blob that it links to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    if blob != path:
        blob.unlink(missing_ok=True)


def fetch_run(pinned: Pinned) -> Path:
    """A folder with what a published model says about its run: recipe.yaml, lock.json, and metrics and card if there.

    Raises:
        ResolutionError: the repository was not published by a run.
    """
    if pinned.path is not None:
        present, folder = set(local_files(pinned.path)), pinned.path
    else:
        listed = {file.path: file for file in list_files(pinned)}
        present, folder = set(listed), None
    missing = sorted({"recipe.yaml", "lock.json"} - present)
    if missing:
        raise ResolutionError(
            f"there is no {' and no '.join(missing)}",
            where=f"model {pinned}",
            expected="a model that `inspo_hub` trained and published, with its recipe and lock",
            fix="check the id and revision",
        )
    return folder or fetch_files(pinned, [listed[name] for name in RUN_FILES if name in present])


def download_size(pinned: Pinned, part: Part = "all") -> int:
    """Bytes that `fetch` needs on this disk; 0 for a local path."""
    return 0 if pinned.path is not None else sum(file.size for file in wanted_files(pinned, part))


def weight_files(pinned: Pinned) -> list[RepoFile]:
    """The safetensors files of a model or adapter with their hashes, of the Hub or of a local folder."""
    if pinned.path is None:
        return [file for file in list_files(pinned) if is_weight_file(file.path)]
    found = []
    for name in filter(is_weight_file, local_files(pinned.path)):
        known = file_hash(pinned.path / name)
        found.append(RepoFile(name, known.size, known.blob_id, known.sha256))
    return found


def weights_identity(pinned: Pinned) -> str:
    """The identity of a model's weights and configuration: one SHA-256 over their hashes.

    The same bytes give the same identity on the Hub and on this disk, and nothing is read where the Hub knows the hash.
    """
    identity: dict[str, str] = {}
    if pinned.path is not None:
        names = local_files(pinned.path)
        require_safetensors(names, where=str(pinned.path))
        for name in filter(_is_identity_file, names):
            identity[name] = file_hash(pinned.path / name).sha256
        return digest(identity)
    files = [file for file in wanted_files(pinned) if _is_identity_file(file.path)]
    unhashed = [file.path for file in files if file.sha256 is None]
    folder = fetch(pinned, patterns=unhashed) if unhashed else None
    for file in files:
        assert folder is not None or file.sha256 is not None, file.path
        identity[file.path] = file.sha256 or file_hash(folder / file.path).sha256  # type: ignore[operator]
    return digest(identity)


def _is_identity_file(path: str) -> bool:
    """Weights, and the configuration that says what they compute."""
    return is_weight_file(path) or path in ("config.json", "adapter_config.json")
