"""References become commits or paths; nothing moves under a run, and without the Hub only what a SHA names is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspo_hub import hub as room
from inspo_hub.errors import ResolutionError
from tests.hub_server import Answer, Drop, HubServer, RateLimited

from .conftest import QUICK, model_files, write_files


def test_a_hub_id_becomes_the_commit_it_is_at(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    first = alice.create_repo(repo, model_files())
    alice.set_ref(repo, "refs/tags/v1", first)
    second = alice.commit(repo, {"config.json": b"{}"})
    assert room.resolve("model", repo).sha == second
    assert room.resolve("model", repo, "v1").sha == first
    assert room.resolve("model", repo, first).sha == first
    pinned = room.resolve("model", repo, "main")
    assert (pinned.kind, pinned.id, pinned.revision, pinned.path) == ("model", repo, "main", None)
    assert str(pinned) == f"{repo}@{second}"


def test_what_was_pinned_stays_when_branch_and_tag_move_and_go(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    first = alice.create_repo(repo, model_files(1))
    alice.set_ref(repo, "refs/tags/v1", first)
    by_tag = room.resolve("model", repo, "v1")
    second = alice.commit(repo, model_files(2))
    alice.set_ref(repo, "refs/tags/v1", second)
    folder = room.fetch(by_tag)
    assert (folder / "model.safetensors").read_bytes() == model_files(1)["model.safetensors"]
    assert room.resolve("model", repo, "v1").sha == second
    alice.set_ref(repo, "refs/tags/v1", None)
    with pytest.raises(
        ResolutionError, match=r"'v1' does not exist \(any more\)[\s\S]*set the revision to that"
    ) as said:
        room.resolve("model", repo, "v1", known_sha=first)
    assert first in said.value.fix


def test_a_path_stays_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "base", model_files())
    pinned = room.resolve("model", str(folder))
    assert pinned.path == folder
    assert pinned.sha is None
    assert room.fetch(pinned) == folder
    monkeypatch.chdir(tmp_path)
    assert room.resolve("model", "./base").path == folder
    with pytest.raises(ResolutionError, match="no such file or folder"):
        room.resolve("dataset", str(tmp_path / "rows.jsonl"))
    with pytest.raises(ResolutionError, match="belongs to a repository on the Hub"):
        room.resolve("model", str(folder), "main")


def test_missing_and_gated_say_what_to_do(alice: HubServer) -> None:
    with pytest.raises(ResolutionError, match="needs a token"):
        room.resolve("model", "bob/nothing-here", patience=QUICK)
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    with pytest.raises(ResolutionError, match="'no-such-branch' does not exist"):
        room.resolve("model", repo, "no-such-branch", patience=QUICK)
    gated = alice.unique("gated", "bob")
    alice.create_repo(gated, model_files(), gated="auto")
    with pytest.raises(ResolutionError, match=f"open {alice.endpoint}/{gated}, accept the conditions"):
        room.fetch(room.resolve("model", gated), patience=QUICK)
    alice.grant(gated, "alice")
    assert (room.fetch(room.resolve("model", gated)) / "config.json").is_file()


def test_busy_hub_is_asked_again_and_its_wait_is_obeyed(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    sha = alice.create_repo(repo, model_files())
    url = f"/api/models/{repo}"
    for action in (Answer(503), Drop("before"), RateLimited(0, by="retry-after"), RateLimited(0, by="ratelimit")):
        rule = alice.faults.add("GET", url, action)
        assert room.resolve("model", repo, patience=QUICK).sha == sha
        assert rule.hits == 1, action
    alice.faults.add("GET", url, RateLimited(3000), times=None)
    with pytest.raises(ResolutionError, match="run the same command again later"):
        room.resolve("model", repo, allow_offline=False, patience=QUICK)


def test_hub_away_uses_the_cache_by_sha_only(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    sha = alice.create_repo(repo, model_files(1))
    room.fetch(room.resolve("model", repo))
    other = alice.commit(repo, model_files(2))
    alice.stop()
    by_sha = room.resolve("model", repo, sha, patience=QUICK)
    assert (room.fetch(by_sha, patience=QUICK) / "model.safetensors").read_bytes() == model_files(1)[
        "model.safetensors"
    ]
    by_lock = room.resolve("model", repo, "main", known_sha=sha, patience=QUICK)
    assert by_lock.sha == sha
    with pytest.raises(ResolutionError, match="main may have moved since it was cached") as said:
        room.resolve("model", repo, patience=QUICK)
    assert sha in said.value.fix
    with pytest.raises(ResolutionError, match=f"commit {other} is not in the cache"):
        room.resolve("model", repo, other, patience=QUICK)
    with pytest.raises(ResolutionError, match="check the connection"):
        room.resolve("model", repo, sha, allow_offline=False, patience=QUICK)


def test_hub_away_never_gives_other_rows(alice: HubServer) -> None:
    repo = alice.unique("rows", "bob")
    old = alice.create_repo(repo, {"train.jsonl": b'{"a": 1}\n'}, type="dataset")
    room.fetch(room.resolve("dataset", repo, old))
    new = alice.commit(repo, {"train.jsonl": b'{"a": 2}\n'}, type="dataset")
    pinned = room.resolve("dataset", repo)
    assert pinned.sha == new
    alice.stop()
    with pytest.raises(ResolutionError, match="listing its files failed"):
        room.fetch(pinned, patience=QUICK)


def test_metadata_of_hub_and_folder(alice: HubServer, tmp_path: Path) -> None:
    card = b"---\nlicense: llama3.1\nlicense_name: a name\n---\n# Card\n"
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, {**model_files(), "README.md": card})
    assert room.metadata(room.resolve("model", repo)).license == "llama3.1"
    folder = write_files(tmp_path / "m", {**model_files(), "README.md": card})
    assert room.metadata(room.resolve("model", str(folder))).license == "llama3.1"
    (folder / "README.md").unlink()
    assert room.metadata(room.resolve("model", str(folder))).license is None
