"""A reference of a recipe -> what can no longer move: a commit of the Hub, or a path on this disk."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.client import DEFAULT_PATIENCE, ONCE, HubFailure, Patience, api, call, resolution_error
from inspo_hub.hub.files import cache_dir, check_repo_path, write_json
from inspo_hub.hub.types import Kind, Pinned, RepoFile, RepoMetadata

log = logging.getLogger(__name__)

SHA = re.compile(r"[0-9a-f]{40}\Z")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?\Z")
ANSWER_S = 30.0


def resolve(
    kind: Kind,
    id: str,
    revision: str | None = None,
    *,
    allow_offline: bool = True,
    known_sha: str | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Pinned:
    """Pins one reference: a local path stays a path, a Hub id becomes the commit it is at now.

    What looks like a Hub id is one, whatever lies in the working directory; `./name` and absolute paths are local.

    Where the Hub cannot be reached and `allow_offline` holds, a commit is used from the cache: the revision itself
    where it is a full SHA, else `known_sha` (of a lock). A branch name is never looked up there: it may have moved.
    """
    if not _REPO_ID.match(id):
        return _pin_path(kind, id, revision, Path(id).expanduser())
    try:
        info = call(lambda: api().repo_info(id, repo_type=kind, revision=revision, timeout=ANSWER_S), patience=patience)
    except HubFailure as failure:
        if failure.fault.kind in ("away", "busy") and allow_offline:
            return _pin_from_cache(kind, id, revision, known_sha, failure)
        if failure.fault.code == "RevisionNotFound":
            raise _revision_missing(kind, id, revision, known_sha) from None
        raise resolution_error(failure.fault, kind=kind, repo_id=id, doing="finding its commit") from None
    assert info.sha, f"the Hub named no commit for {id}"
    return Pinned(kind, id, revision, info.sha, None)


def _pin_path(kind: Kind, id: str, revision: str | None, path: Path) -> Pinned:
    if not path.exists():
        raise ResolutionError(
            "no such file or folder",
            where=f"{kind} {id}",
            expected="a path on this disk, or a Hub id `owner/name`",
            fix="check the spelling; paths are relative to the file that names them",
        )
    if revision is not None:
        raise ResolutionError(
            f"revision {revision!r} belongs to a repository on the Hub, but this is a local path",
            where=f"{kind} {id}",
            expected="no revision for a local path",
            fix="remove the revision, or rename the local path if the Hub was meant",
        )
    return Pinned(kind, id, None, None, path.resolve())


def _pin_from_cache(kind: Kind, id: str, revision: str | None, known_sha: str | None, failure: HubFailure) -> Pinned:
    """The commit from the cache, by its SHA only; the branch of a repository may have moved since it was cached."""
    sha = revision if revision is not None and SHA.match(revision) else known_sha
    if sha is not None and _is_cached(kind, id, sha):
        log.warning("The Hub cannot be reached; using %s %s@%s from the cache", kind, id, sha)
        return Pinned(kind, id, revision, sha, None)
    cached = [known for known in cached_shas(kind, id) if sha is None or known == sha]
    hint = f"set its revision to the cached commit {cached[0]}" if cached else "connect to the Hub once to download it"
    raise ResolutionError(
        f"the Hub cannot be reached ({failure.fault.message}), and "
        + (f"commit {sha} is not in the cache" if sha else f"{revision or 'main'} may have moved since it was cached"),
        where=f"{kind} {id}",
        expected="a connection, or a full commit SHA that is in the cache",
        fix=hint,
    ) from None


def _revision_missing(kind: Kind, id: str, revision: str | None, known_sha: str | None) -> ResolutionError:
    return ResolutionError(
        f"revision {revision or 'main'!r} does not exist (any more)",
        where=f"{kind} {id}",
        expected="a branch, tag or full commit SHA of the repository",
        fix=f"the lock has it at {known_sha}: set the revision to that" if known_sha else "check the revision",
    )


def list_files(pinned: Pinned) -> list[RepoFile]:
    """The files of a pinned commit with the Hub's hashes. A commit never changes, so its list is kept in our cache."""
    assert pinned.sha is not None, "local paths are listed by files.local_files"
    entry = _listing_path(pinned.kind, pinned.id, pinned.sha)
    where = f"{pinned.kind} {pinned}"
    if entry.is_file():
        stored = json.loads(entry.read_text(encoding="utf-8"))
        return [RepoFile(**{**item, "path": check_repo_path(item["path"], where=where)}) for item in stored]
    try:
        tree = call(lambda: _tree(pinned), patience=ONCE)
    except HubFailure as failure:
        raise resolution_error(
            failure.fault, kind=pinned.kind, repo_id=pinned.id, doing="listing its files", sha=pinned.sha
        ) from None
    for file in tree:
        check_repo_path(file.path, where=where)
    write_json(entry, [{name: getattr(file, name) for name in RepoFile.__slots__} for file in tree])
    return tree


def _tree(pinned: Pinned) -> list[RepoFile]:
    from huggingface_hub.hf_api import RepoFile as ListedFile

    entries = api().list_repo_tree(pinned.id, repo_type=pinned.kind, revision=pinned.sha, recursive=True)
    files = [entry for entry in entries if isinstance(entry, ListedFile)]
    return [RepoFile(file.path, file.size, file.blob_id, file.lfs.sha256 if file.lfs else None) for file in files]


def _listing_path(kind: Kind, id: str, sha: str) -> Path:
    return cache_dir() / "listings" / f"{kind}s--{id.replace('/', '--')}" / f"{sha}.json"


def _snapshot_path(kind: Kind, id: str, sha: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{id.replace('/', '--')}" / "snapshots" / sha


def _is_cached(kind: Kind, id: str, sha: str) -> bool:
    """Whether a commit was downloaded and can be checked: its list of hashes and its folder are both here."""
    return _listing_path(kind, id, sha).is_file() and _snapshot_path(kind, id, sha).is_dir()


def cached_shas(kind: Kind, id: str) -> list[str]:
    """Commits of a repository in the cache that can be used without the Hub, newest first."""
    folder = _listing_path(kind, id, "x").parent
    if not folder.is_dir():
        return []
    newest_first = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [path.stem for path in newest_first if _is_cached(kind, id, path.stem)]


def metadata(pinned: Pinned, *, patience: Patience = DEFAULT_PATIENCE) -> RepoMetadata:
    """License, access and card metadata of a pinned repository; of a local folder, from its README.md."""
    from huggingface_hub import ModelCard, repocard

    if pinned.path is not None:
        readme = pinned.path / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        card = (
            ModelCard(text, ignore_metadata_errors=True).data.to_dict()
            if repocard.REGEX_YAML_BLOCK.search(text)
            else {}
        )
        return _metadata(card, gated=False, private=False)
    try:
        info = call(
            lambda: api().repo_info(pinned.id, repo_type=pinned.kind, revision=pinned.sha, timeout=ANSWER_S),
            patience=patience,
        )
    except HubFailure as failure:
        raise resolution_error(
            failure.fault, kind=pinned.kind, repo_id=pinned.id, doing="reading its metadata"
        ) from None
    data = getattr(info, "card_data", None)
    card = data.to_dict() if data is not None else {}
    return _metadata(card, gated=bool(getattr(info, "gated", False)), private=bool(getattr(info, "private", False)))


def _metadata(card: dict[str, object], *, gated: bool, private: bool) -> RepoMetadata:
    def text(name: str) -> str | None:
        value = card.get(name)
        return value if isinstance(value, str) and value else None

    return RepoMetadata(text("license"), text("license_name"), text("license_link"), gated, private, card)
