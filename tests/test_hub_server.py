"""The test Hub answers the real clients as the production Hub would: repositories, files, commits, access, cards."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import HubServer
from tests.hub_server.store import Tree

WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token("alice"))


def folder(path: Path, **files: bytes | str) -> Path:
    for name, content in files.items():
        target = path / name.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def post_commit(hub: HubServer, repo: str, *operations: str) -> httpx2.Response:
    """A commit by hand, past what the client checks by itself."""
    return httpx2.post(
        f"{hub.endpoint}/api/{repo}/commit/main",
        content="\n".join(['{"key": "header", "value": {"summary": "by hand"}}', *operations]),
        headers={"Authorization": f"Bearer {hub.token('alice')}"},
    )


# --- Files and commits ---


def test_a_folder_goes_up_and_comes_down_the_same(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    repo = hub.unique("model")
    api.create_repo(repo, private=True)
    source = folder(tmp_path / "source", **{"model.safetensors": WEIGHTS, "sub__größe.json": '{"a": 1}', "empty": b""})
    commit = api.upload_folder(repo_id=repo, folder_path=source)
    assert commit.oid == hub.head(repo)
    assert hub.files(repo) == {"model.safetensors": WEIGHTS, "sub/größe.json": b'{"a": 1}', "empty": b""}
    found = Path(snapshot_download(repo, revision=commit.oid, endpoint=hub.endpoint, token=hub.token("alice")))
    assert {name: (found / name).read_bytes() for name in hub.files(repo)} == hub.files(repo)
    # The weights went past the Hub, both ways, and without the token; the rest did not.
    storage = [(entry.method, entry.token) for entry in hub.log if entry.origin == "cdn"]
    assert storage == [("PUT", ""), ("GET", "")]


def test_object_ids_are_those_of_git(hub: HubServer, tmp_path: Path) -> None:
    repo = hub.unique("model")
    sha = hub.create_repo(repo, {"a/b/c.txt": "c", "a.b": "x", "a0": "y", "ü.txt": "z"})
    commit = hub.repo(repo).commits[sha]
    git = ["git", "-C", str(tmp_path), "-c", "core.autocrlf=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    for path, blob in commit.files.items():
        folder(tmp_path, **{path.replace("/", "__"): blob.content})
    subprocess.run([*git, "add", "-A"], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    assert Tree(commit.files).oid() == tree


def test_unchanged_files_are_not_sent_again(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"model.safetensors": WEIGHTS, "config.json": "{}"})
    source = folder(tmp_path, **{"model.safetensors": WEIGHTS, "config.json": "{}"})
    assert api.upload_folder(repo_id=repo, folder_path=source).oid == hub.head(repo)
    assert hub.log.count("POST", "/commit/") == hub.log.count("PUT") == 0
    folder(tmp_path, **{"config.json": '{"a": 1}'})
    api.upload_folder(repo_id=repo, folder_path=source)
    assert hub.log.count("POST", "/commit/") == 1
    assert hub.log.count("PUT") == 0
    assert len(hub.history(repo)) == 3


def test_remote_hashes_are_those_of_the_local_files(hub: HubServer, api: HfApi) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"model.safetensors": WEIGHTS, "sub/config.json": "{}"})
    paths = ["model.safetensors", "sub/config.json", "sub", "not there"]
    weights, config, sub = api.get_paths_info(repo, paths, expand=True)
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.last_commit is not None
    assert weights.last_commit.oid == hub.head(repo)
    assert config.blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert sub.tree_id == Tree({"config.json": hub.repo(repo).commits[hub.head(repo)].files["sub/config.json"]}).oid()


def test_multipart_uploads_are_put_together(hub: HubServer, api: HfApi) -> None:
    hub.multipart_from_bytes, hub.part_bytes = 1000, 4000
    repo = hub.unique("model")
    hub.create_repo(repo)
    api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS[:10_000], path_in_repo="model.safetensors")
    assert hub.files(repo)["model.safetensors"] == WEIGHTS[:10_000]
    assert hub.log.count("PUT", "^/part/", origin="cdn") == 3


def test_one_commit_adds_copies_and_deletes(hub: HubServer, api: HfApi) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"model.safetensors": WEIGHTS, "old/a.txt": "a", "old/b.txt": "b", "gone.txt": "c"})
    operations = [
        CommitOperationAdd("new.txt", b"new"),
        CommitOperationCopy("model.safetensors", "copy.safetensors"),
        CommitOperationDelete("old/"),
        CommitOperationDelete("gone.txt"),
    ]
    api.create_commit(repo, operations, commit_message="all at once", commit_description="in one")
    assert hub.files(repo) == {"model.safetensors": WEIGHTS, "copy.safetensors": WEIGHTS, "new.txt": b"new"}
    newest = api.list_repo_commits(repo)[0]
    assert (newest.title, newest.message, newest.authors) == ("all at once", "in one", ["alice"])
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("gone.txt", repo)


def test_a_commit_on_a_parent_that_moved_is_refused(hub: HubServer, api: HfApi) -> None:
    repo = hub.unique("model")
    parent = hub.create_repo(repo, {"a": "1"})
    hub.commit(repo, {"a": "2"})
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        api.upload_file(repo_id=repo, path_or_fileobj=b"3", path_in_repo="a", parent_commit=parent)
    assert status_of(error) == 412
    api.upload_file(repo_id=repo, path_or_fileobj=b"3", path_in_repo="a", parent_commit=hub.head(repo))
    assert hub.files(repo) == {"a": b"3"}


def test_bytes_are_served_in_ranges(hub: HubServer) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"model.safetensors": WEIGHTS})
    url = f"{hub.endpoint}/{repo}/resolve/main/model.safetensors"
    with httpx2.Client(follow_redirects=True) as client:
        middle = client.get(url, headers={"Range": "bytes=10-19"})
        assert (middle.status_code, middle.content) == (206, WEIGHTS[10:20])
        assert middle.headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
        assert client.get(url, headers={"Range": "bytes=-5"}).content == WEIGHTS[-5:]
        assert client.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416


def test_the_file_storage_takes_neither_tokens_nor_unsigned_urls(hub: HubServer) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"model.safetensors": WEIGHTS})
    at = httpx2.head(f"{hub.endpoint}/{repo}/resolve/main/model.safetensors").headers["Location"]
    assert at.startswith(hub.cdn)
    assert hub.cdn != hub.endpoint
    assert httpx2.get(at).content == WEIGHTS
    assert httpx2.get(at.split("?")[0]).status_code == 403
    assert httpx2.get(at, headers={"Authorization": f"Bearer {hub.token('alice')}"}).status_code == 400
    assert [entry.token for entry in hub.log.token_leaks] == ["alice:write"]
    hub.log.clear()  # else the fixture would fail this test, as it should any other


# --- Revisions ---


def test_refs_are_made_moved_and_deleted(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    repo = hub.unique("data")
    first = hub.create_repo(repo, {"a.jsonl": "1"}, type="dataset")
    api.create_branch(repo, branch="checkpoints", repo_type="dataset")
    api.create_tag(repo, tag="v1", tag_message="the first", repo_type="dataset")
    second = hub.commit(repo, {"a.jsonl": "2"}, type="dataset", revision="checkpoints")
    refs = api.list_repo_refs(repo, repo_type="dataset")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "checkpoints": second}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first}
    assert [api.dataset_info(repo, revision=at).sha for at in ("v1", "checkpoints", first[:8])] == [
        first,
        second,
        first,
    ]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag(repo, tag="v1", repo_type="dataset")
    assert status_of(error) == 409
    hub.set_ref(repo, "refs/tags/v1", second, type="dataset")
    assert api.dataset_info(repo, revision="v1").sha == second
    api.delete_tag(repo, tag="v1", repo_type="dataset")
    api.delete_branch(repo, branch="checkpoints", repo_type="dataset")
    for gone in ("v1", "checkpoints", "0" * 40):
        with pytest.raises(RevisionNotFoundError):
            snapshot_download(repo, repo_type="dataset", revision=gone, cache_dir=tmp_path, endpoint=hub.endpoint)
    with pytest.raises(HfHubHTTPError, match="Cannot delete"):
        api.delete_branch(repo, branch="main", repo_type="dataset")


def test_history_pages_and_squashes(hub: HubServer, api: HfApi) -> None:
    hub.page_size = 2
    repo = hub.unique("model")
    hub.create_repo(repo)
    shas = [hub.commit(repo, {f"f/{number}": "x"}, title=f"commit {number}") for number in range(5)]
    assert [row.commit_id for row in api.list_repo_commits(repo)][:5] == shas[::-1]
    assert [row.path for row in api.list_repo_tree(repo, "f")] == [f"f/{number}" for number in range(5)]
    files = hub.files(repo)
    api.super_squash_history(repo)
    assert len(hub.history(repo)) == 1
    assert hub.files(repo) == files


def test_who_may_not_write_may_propose(hub: HubServer, api: HfApi) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"a": "1"})
    bob = HfApi(endpoint=hub.endpoint, token=hub.token("bob"))
    with pytest.raises(HfHubHTTPError, match="Pass create_pr=1") as error:
        bob.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="a")
    assert status_of(error) == 403
    proposed = bob.create_commit(
        repo,
        [CommitOperationAdd("a", b"2"), CommitOperationAdd("w.safetensors", WEIGHTS)],
        commit_message="better",
        create_pr=True,
    )
    assert (proposed.pr_num, proposed.pr_revision) == (1, "refs/pr/1")
    bob.upload_file(repo_id=repo, path_or_fileobj=b"3", path_in_repo="b", revision="refs/pr/1")
    assert hub.files(repo) == {"a": b"1"}
    assert hub.files(repo, "refs/pr/1") == {"a": b"2", "b": b"3", "w.safetensors": WEIGHTS}
    assert [(one.title, one.author, one.status) for one in api.get_repo_discussions(repo)] == [
        ("better", "bob", "open")
    ]
    hub.commit(repo, {"c": "4"})
    api.comment_discussion(repo, 1, "thank you")
    with pytest.raises(HfHubHTTPError):
        bob.merge_pull_request(repo, 1)
    api.merge_pull_request(repo, 1)
    assert hub.files(repo) == {"a": b"2", "b": b"3", "c": b"4", "w.safetensors": WEIGHTS}
    assert api.get_discussion_details(repo, 1).merge_commit_oid == hub.head(repo)
    assert [ref.ref for ref in api.list_repo_refs(repo, include_pull_requests=True).pull_requests or []] == [
        "refs/pr/1"
    ]


# --- Commits that the Hub refuses, whatever client made them ---


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ('{"key": "lfsFile", "value": {"path": "w.bin", "oid": "%s", "size": 3}}' % ("0" * 64), "does not exist"),
        ('{"key": "file", "value": {"path": "../up", "content": "x"}}', "Invalid path"),
        ('{"key": "file", "value": {"path": ".git/config", "content": "x"}}', "Invalid path"),
        ('{"key": "file", "value": {"path": "a", "content": "AAA=", "encoding": "base64"}}', "binary"),
        ("not json", "Invalid NDJSON"),
    ],
)
def test_a_bad_commit_is_refused_whole(hub: HubServer, operation: str, why: str) -> None:
    repo = hub.unique("model")
    before = hub.create_repo(repo)
    good = '{"key": "file", "value": {"path": "ok", "content": "x"}}'
    answer = post_commit(hub, f"models/{repo}", good, operation)
    assert (answer.status_code, why in answer.text) == (400, True), answer.text
    assert hub.head(repo) == before


def test_cached_by_sha_when_the_hub_is_away(hub: HubServer, tmp_path: Path, waits: list[float]) -> None:
    repo = hub.unique("model")
    sha = hub.create_repo(repo, {"a": "1"})
    other = hub.commit(repo, {"a": "2"})
    first = snapshot_download(repo, revision=sha, cache_dir=tmp_path, endpoint=hub.endpoint)
    hub.stop()
    assert snapshot_download(repo, revision=sha, cache_dir=tmp_path, endpoint=hub.endpoint) == first
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download(repo, revision=other, cache_dir=tmp_path, endpoint=hub.endpoint)
    port = hub.endpoint
    hub.start()
    assert hub.endpoint == port
    assert Path(snapshot_download(repo, revision=other, cache_dir=tmp_path, endpoint=hub.endpoint), "a").exists()
    assert waits == [1, 2, 4, 8, 8]  # for the one that was not cached
