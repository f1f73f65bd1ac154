"""Before GPU time: tokens of every kind, gated and missing repositories, cards, disk; everything wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspo_hub import hub as room
from inspo_hub.errors import ResolutionError
from inspo_hub.hub import DiskNeed, WriteTarget, preflight
from tests.hub_server import Answer, HubServer

from .conftest import QUICK, model_files


def test_a_go_creates_the_repository_private_and_checks_writing(alice: HubServer) -> None:
    base, target = alice.unique("base", "bob"), alice.unique("new", "alice")
    alice.create_repo(base, model_files())
    read = room.resolve("model", base)
    assert preflight([read], [WriteTarget(target)]) == [], "a plan creates nothing"
    assert not alice.log.count("POST", "/api/repos/create")
    assert preflight([read], [WriteTarget(target)], create=True) == []
    assert alice.repo(target).private
    assert alice.log.count("GET", f"{target}/auth-check/write") == 1
    assert preflight([read], [WriteTarget(target)], create=True) == [], "twice is once"
    public = alice.unique("new", "acme")
    assert preflight(writes=[WriteTarget(public, private=False)], create=True) == []
    assert not alice.repo(public).private


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, "there is no token"),
        ("invalid", "there is no valid token"),
        ("read", "the token of alice may only read"),
        ("fine", "alice may not write to the repository"),
        ("bob", "bob may not write to the repository"),
    ],
)
def test_tokens_of_the_wrong_kind(
    alice: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None, expected: str
) -> None:
    target = alice.unique("target", "alice")
    alice.create_repo(target)
    secrets = {
        "invalid": "hf_" + "x" * 34,
        "read": alice.add_token("alice", "read"),
        "fine": alice.add_token("alice", "fineGrained", {"alice/other": ["repo.write"]}),
        "bob": alice.add_token("bob"),
    }
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", secrets[token])
    problems = preflight(writes=[WriteTarget(target)], create=True, patience=QUICK)
    assert len(problems) == 1
    assert expected in str(problems[0])
    assert problems[0].exit_code == 3
    assert not any(secret in str(problems[0]) for secret in secrets.values())


def test_a_fine_grained_token_that_may_write_is_enough(alice: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    target = alice.unique("target", "alice")
    alice.create_repo(target)
    scopes = {target: ["repo.write", "repo.content.read"]}
    monkeypatch.setenv("HF_TOKEN", alice.add_token("alice", "fineGrained", scopes))
    assert preflight(writes=[WriteTarget(target)], create=True) == []


def test_everything_wrong_is_listed_at_once(alice: HubServer, tmp_path: Path) -> None:
    gated = alice.unique("gated", "bob")
    alice.create_repo(gated, model_files(), gated="manual")
    theirs = alice.unique("theirs", "bob")
    alice.create_repo(theirs)
    problems = preflight(
        [room.resolve("model", gated)],
        [WriteTarget(theirs), WriteTarget("bob/new-one")],
        disk=[DiskNeed(tmp_path / "a" / "b", 10**15, "checkpoints"), DiskNeed(tmp_path, 10**15, "cache")],
        cards=[("README.md", "---\nlicense: nonsense\n---\n")],
        create=True,
    )
    with pytest.raises(ResolutionError, match=r"5 things stand in the way of this run") as said:
        room.refuse(problems)
    text = str(said.value)
    assert f"open {alice.endpoint}/{gated}, accept the conditions" in text
    assert "publish.create_pr: true" in text
    assert "alice does not belong to bob" in text
    assert "2100000.0 GB are needed (checkpoints 1000000.0 GB, cache 1000000.0 GB)" in text
    assert "the Hub refuses the card" in text
    assert said.value.exit_code == 3
    room.refuse([])


def test_pull_requests_need_a_repository_but_no_write_access(alice: HubServer) -> None:
    theirs = alice.unique("theirs", "bob")
    alice.create_repo(theirs)
    assert preflight(writes=[WriteTarget(theirs, create_pr=True)], create=True) == []
    problems = preflight(writes=[WriteTarget("bob/not-there", create_pr=True)], create=True)
    assert "it can take no pull request" in str(problems[0])


def test_what_must_be_private_is_not_published_in_public(alice: HubServer) -> None:
    public = alice.unique("public", "alice")
    alice.create_repo(public)
    assert "is public, but publish.private is true" in str(preflight(writes=[WriteTarget(public, private=True)])[0])
    assert preflight(writes=[WriteTarget(public)]) == []


def test_a_busy_hub_is_waited_for_and_then_told(alice: HubServer) -> None:
    target = alice.unique("target", "alice")
    alice.create_repo(target)
    alice.faults.add("GET", "whoami", Answer(503), times=2)
    assert preflight(writes=[WriteTarget(target)], patience=QUICK) == []
    alice.faults.add("GET", "whoami", Answer(503), times=None)
    problems = preflight(writes=[WriteTarget(target)], patience=QUICK)
    assert "the Hub did not say who we are" in str(problems[0])
