"""Before anything is trained: every missing right is told at once, with what to do about it, and exit code 3."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from inspo_hub.cli import main
from tests.hub_server import HubServer
from tests.hub_server.process import environment

from .conftest import Machine, Whole, World, copied

SEVERAL_RUNS = """
    import json, os, sys
    from inspo_hub.cli import main

    for token in json.load(sys.stdin):
        os.environ.pop("HF_TOKEN", None)
        if token is not None:
            os.environ["HF_TOKEN"] = token
        code = main(["run", sys.argv[1], "--output", "out", "--json"])
        print(json.dumps({"returned": code}), flush=True)
"""
"""In one process, because importing takes longest."""


def refusals(machine: Machine, tokens: list[str | None]) -> list[dict[str, object]]:
    """What `run --json` says with each token, on a machine that was never used."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SEVERAL_RUNS), str(machine.recipe)],
        input=json.dumps(tokens),
        env=environment(machine.server, machine.home),
        cwd=machine.home,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    machine.said.append(done.stdout + done.stderr)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["returned"] for each in told[1::2]} == {3}, done.stdout
    return told[::2]


def refusal(capsys: pytest.CaptureFixture[str], machine: Machine, *arguments: str) -> str:
    """What a run in this process says why it does not begin."""
    capsys.readouterr()
    output = machine.output()
    assert main(["run", str(machine.recipe), "--output", str(output), "--json", *arguments]) == 3
    assert not (output / "trained.json").exists()
    return str(json.loads(capsys.readouterr().out)["what"])


def test_tokens_of_every_wrong_kind(hub: HubServer, machine: Machine, world: World) -> None:
    repo = hub.unique("wrong", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo})
    wrong, read, bobs = "hf_" + "x" * 34, hub.add_token("alice", "read"), hub.add_token("bob")
    absent, invalid, reading, other = refusals(machine, [None, wrong, read, bobs])
    assert (absent["what"], absent["where"]) == ("there is no token", f"publish to {repo}")
    assert "hf auth login" in str(absent["fix"])
    assert "there is no valid token" in str(invalid["what"])
    assert world.base in str(invalid["what"]), "what cannot be read for the same reason is in the same message"
    assert reading["what"] == "the token of alice may only read"
    assert other["what"] == "bob does not belong to alice"
    assert ("model", repo) not in hub.repos, "nothing was created"
    assert not (machine.output() / "trained.json").exists()
    assert not list(machine.home.rglob("*.safetensors")), "no weights were downloaded"
    for secret in (wrong, read, bobs):
        assert secret not in machine.said[-1]


def test_everything_wrong_is_told_at_once(
    as_alice: HubServer, machine: Machine, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = as_alice
    gated, rows = hub.unique("gated", "bob"), hub.unique("gated-rows", "bob")
    hub.create_repo(gated, dict(world.base_files), gated="auto")
    hub.create_repo(rows, dict(world.row_files), type="dataset", gated="manual")
    theirs = hub.unique("theirs", "bob")
    hub.create_repo(theirs)
    machine.write_recipe(world.recipe, publish={"repo": theirs})
    settings = ["--set", f"model.id={gated}", "--set", f"data.train.0.id={rows}"]
    what = refusal(capsys, machine, *settings)
    assert what.startswith("3 things stand in the way of this run")
    assert f"{hub.endpoint}/{gated}, accept the conditions" in what
    assert f"{hub.endpoint}/datasets/{rows}, accept the conditions" in what
    assert "alice may not write to the repository" in what
    assert "set publish.create_pr: true" in what
    for kind, name in (("model", gated), ("dataset", rows)):
        hub.grant(name, "alice", type=kind)
    hub.log.clear()
    assert refusal(capsys, machine, *settings).startswith("alice may not write"), "the gates are open now"


def test_a_card_that_the_hub_would_refuse_is_told_before_training(
    as_alice: HubServer, machine: Machine, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = as_alice
    base = hub.unique("odd", "bob")
    card = "---\nlicense: apache-2.0\n---\n"
    hub.create_repo(base, {**world.base_files, "README.md": card})
    # A card that was written before the Hub checked licenses.
    hub.commit(base, {"README.md": "---\nlicense: all-mine-1.0\n---\n"})
    repo = hub.unique("card", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo})
    what = refusal(capsys, machine, "--set", f"model.id={base}")
    assert "the Hub refuses the card" in what
    assert "all-mine-1.0" in what


@pytest.mark.slow
def test_a_pull_request_by_xet_where_one_has_no_write_access(hub: HubServer, machine: Machine, world: World) -> None:
    theirs = hub.unique("theirs", "bob")
    hub.create_repo(theirs, {"README.md": "# Bob's own\n"})
    there = Machine(hub, machine.home, machine.token, xet=True)
    there.write_recipe(world.recipe, publish={"repo": theirs, "strategy": "every_save", "create_pr": True})
    published = there.run("--set", "train.max_steps=2")["variants"]["tiny"]["published"]
    assert published["complete"]
    assert published["pull_request"] == 1
    assert hub.files(theirs) == {"README.md": b"# Bob's own\n"}
    assert hub.files(theirs, "refs/pr/1")["model.safetensors"] == there.weights()
    assert hub.repo(theirs).discussions[1].status == "open"
    assert hub.log.count("POST", "/v1/shards", origin="cas"), "the weights went by Xet"


def test_public_and_pull_requests_by_the_command_line(hub: HubServer, machine: Machine, whole: Whole) -> None:
    output, repo, theirs = str(copied(whole, machine)), hub.unique("public", "alice"), hub.unique("theirs", "bob")
    hub.create_repo(theirs, {"README.md": "# Bob's own\n"})
    assert machine.cli("publish", output, "--repo", repo, "--public")["ok"]
    assert not hub.repo(repo).private
    assert hub.files(repo)["model.safetensors"] == whole.machine.weights()
    told = machine.cli("publish", output, "--repo", theirs, expect=3)
    assert "alice may not write to the repository" in told["what"]
    told = machine.cli("publish", output, "--repo", theirs, "--create-pr")
    assert told["variants"]["tiny"]["pull_request"] == 1
    assert hub.files(theirs, "refs/pr/1")["model.safetensors"] == whole.machine.weights()
    assert machine.cli("publish", output, "--collection", "--create-pr", expect=5)["where"] == output
