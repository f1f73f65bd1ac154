"""Puts files onto the Hub in one commit, and looks whether they stand there: every push is compared by hash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspo_hub.hub.client import DEFAULT_PATIENCE, HubFailure, Patience, api, call, repo_url
from inspo_hub.hub.faults import Fault
from inspo_hub.hub.files import check_repo_path, local_files
from inspo_hub.hub.fingerprint import file_hash
from inspo_hub.hub.resolve import ANSWER_S
from inspo_hub.hub.types import Commit, FileHash, Kind, RepoFile

log = logging.getLogger(__name__)

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Upload:
    """What one push must bring about: these files on this branch, and none of the stale ones.

    `hashes` are those of `files`. `stale` picks, among the remote files that are not uploaded, those that the same
    commit removes.
    """

    repo_id: str
    files: Mapping[str, Path | bytes]
    hashes: Mapping[str, FileHash]
    revision: str
    message: str
    description: str = ""
    kind: Kind = "model"
    stale: Callable[[str], bool] = lambda path: False

    def __post_init__(self) -> None:
        assert self.files.keys() == self.hashes.keys(), "one hash for each file"


def look(repo_id: str, revision: str, *, kind: Kind = "model") -> tuple[str, dict[str, RepoFile]] | None:
    """The commit a revision is at and its files by path, in one answer; None without such a revision. One attempt."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        info = api().repo_info(repo_id, repo_type=kind, revision=revision, files_metadata=True, timeout=ANSWER_S)
    except RevisionNotFoundError:
        return None
    assert info.sha is not None, f"the Hub named no commit for {repo_id}"
    files = {}
    for file in getattr(info, "siblings", None) or []:
        lfs = file.lfs
        files[file.rfilename] = RepoFile(
            file.rfilename, file.size or 0, file.blob_id or "", lfs.sha256 if lfs is not None else None
        )
    return info.sha, files


def differing(hashes: Mapping[str, FileHash], remote: Mapping[str, RepoFile]) -> list[str]:
    """Paths that are missing on the Hub or whose hash there is another one."""
    return sorted(path for path, local in hashes.items() if path not in remote or not local.matches(remote[path]))


def push(upload: Upload, *, create_pr: bool = False) -> Commit:
    """Brings the files to the branch, in at most one commit, and checks that they stand there. One attempt.

    Where they already stand there (the answer to an earlier commit was lost), nothing is committed. Raises what the
    client raises, or HubFailure where the Hub holds other bytes than were sent; the caller classifies and tries again.
    """
    for path in upload.files:
        check_repo_path(path, where=upload.repo_id)
    found = look(upload.repo_id, upload.revision, kind=upload.kind)
    if found is None:
        log.info("creating the branch %s of %s", upload.revision, upload.repo_id)
        api().create_branch(upload.repo_id, branch=upload.revision, repo_type=upload.kind, exist_ok=True)
    head, remote = found if found is not None else ("", {})
    stale = [path for path in remote if path not in upload.files and upload.stale(path)]
    if head and not stale and not differing(upload.hashes, remote):
        return Commit(head, _commit_url(upload, head), _pull_request_number(upload.revision))
    done = _commit(upload, stale, create_pr)
    stands = look(upload.repo_id, done.sha, kind=upload.kind)
    wrong = differing(upload.hashes, stands[1] if stands is not None else {})
    if wrong:
        raise HubFailure(Fault("busy", f"the Hub holds other bytes than were sent: {', '.join(wrong[:5])}"))
    return done


def _commit(upload: Upload, stale: Sequence[str], create_pr: bool) -> Commit:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path, source) for path, source in sorted(upload.files.items(), key=lambda item: item[0])
    ]
    operations += [CommitOperationDelete(path, is_folder=False) for path in stale]
    info = api().create_commit(
        upload.repo_id,
        operations,
        commit_message=upload.message,
        commit_description=upload.description,
        repo_type=upload.kind,
        revision=None if create_pr else upload.revision,
        create_pr=create_pr,
    )
    number = info.pr_num if create_pr else _pull_request_number(upload.revision)
    return Commit(info.oid, _commit_url(upload, info.oid), number)


def _commit_url(upload: Upload, sha: str) -> str:
    return f"{repo_url(upload.repo_id, upload.kind)}/commit/{sha}"


def pull_request_ref(number: int) -> str:
    return f"refs/pr/{number}"


def _pull_request_number(revision: str) -> int | None:
    prefix = "refs/pr/"
    return int(revision.removeprefix(prefix)) if revision.startswith(prefix) else None


def find_pull_request(repo_id: str, title: str, *, kind: Kind = "model") -> int | None:
    """The open pull request with this title: the one whose creation was done although its answer was lost."""
    found = api().get_repo_discussions(repo_id, repo_type=kind, discussion_type="pull_request", discussion_status="all")
    numbers = [each.num for each in found if each.title == title and each.status in ("open", "draft")]
    return max(numbers, default=None)


def open_pull_request(repo_id: str, number: int, *, kind: Kind = "model") -> None:
    """Makes a draft ready for its reader; the client creates every pull request as a draft. One attempt."""
    client = api()
    if client.get_discussion_details(repo_id, number, repo_type=kind).status == "draft":
        client.change_discussion_status(repo_id, number, "open", repo_type=kind)


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    kind: Kind,
    message: str,
    private: bool | None = None,
    stale: Callable[[str], bool] = lambda path: False,
    patience: Patience = DEFAULT_PATIENCE,
) -> Commit:
    """Brings a folder of results (a dataset, a Space) to `main`, creating the repository; in one commit, checked.

    Nothing is committed where all of it stands there. Hidden files stay here. Raises HubFailure.

    Args:
        stale: picks, among the other files of the repository, those that are removed.
    """
    ensure_repo(repo_id, private=private, kind=kind)
    files: dict[str, Path | bytes] = {name: folder / name for name in local_files(folder)}
    hashes = {name: file_hash(folder / name) for name in files}
    return call(lambda: push(Upload(repo_id, files, hashes, MAIN, message, kind=kind, stale=stale)), patience=patience)


def ensure_repo(repo_id: str, *, private: bool | None, kind: Kind = "model") -> None:
    """Creates the repository where it is missing: private unless `private` is False. Retries; raises HubFailure."""
    sdk = "gradio" if kind == "space" else None
    call(lambda: api().create_repo(repo_id, repo_type=kind, private=private is not False, exist_ok=True, space_sdk=sdk))
