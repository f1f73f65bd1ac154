"""Bringing a Space to the Hub, and votes to their dataset, against the test Hub with the real client."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inspo_hub import hub as our_hub
from inspo_hub.cli import main
from inspo_hub.errors import PublishError, RecipeError, ResolutionError
from inspo_hub.space import (
    SpaceConfig,
    VoteStore,
    deploy_space,
    open_service,
    read_config,
    space_page,
    write_config,
)
from inspo_hub.space.config import VotesSection
from inspo_hub.space.deployment import SpaceWishes, compose
from inspo_hub.space.outputs import space_of_output
from tests.hub_server import HubServer
from tests.hub_server.cards import check_card, front_matter
from tests.hub_server.faults import Answer
from tests.hub_server.process import ROOT
from tests.space.conftest import Served, free_port, start_space, wait_until_up
from tests.space.test_rounds import BLUE, Scripted, service_of

gradio_client = pytest.importorskip("gradio_client")
CARD = b"---\ntags: [votes]\n---\n# Rows\n"


@pytest.fixture
def alice(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    return hub


def wishes(hub: HubServer, **more: Any) -> SpaceWishes:
    repo = hub.unique("space")
    return SpaceWishes(**{"repo": repo, "votes": f"{repo}-votes", **more})


def published(hub: HubServer, twins: Path, folder: Path) -> Path:
    """The twins' output as it is after `inspo-hub publish`: repositories with their weights, and their commits."""
    output = folder / "out"
    shutil.copytree(twins, output)
    for name in ("dpo", "inspo"):
        repo = hub.unique(name)
        files = {path.name: path.read_bytes() for path in (output / name).iterdir() if path.is_file()}
        sha = hub.create_repo(repo, {name: text for name, text in files.items() if not name.startswith(".")})
        known = {"what": "weights", "step": 1, "revision": "main", "sha": sha, "url": ""}
        (output / name / "published.json").write_text(json.dumps({"repo_id": repo, "published": [known]}))
    return output


# --- deploy


def test_a_space_is_deployed_once_and_again(alice: HubServer, twins: Path) -> None:
    asked = wishes(alice)
    done = deploy_space(twins, asked)
    files = alice.files(asked.repo, type="space")
    assert {"app.py", "space.json", "requirements.txt", "README.md", "run/generations.jsonl"} <= files.keys()
    assert "inspo_hub/space/service.py" in files
    assert not [name for name in files if "_recipes" in name or name.endswith(".pyc")]
    card = files["README.md"].decode()
    assert check_card(card, "space") == ([], [])
    facts = front_matter(card)
    assert facts is not None
    assert (facts["sdk"], facts["app_file"], facts["datasets"]) == ("gradio", "app.py", [asked.votes])
    assert b"torch" not in files["requirements.txt"].split(b"\n", 1)[1], "nothing runs models here"
    assert "HF_TOKEN" in done.missing[0]
    assert str(twins).encode() not in files["space.json"], "no path of this machine"
    assert deploy_space(twins, asked).sha == done.sha, "nothing is committed again"


def test_a_live_space_names_models_at_their_commits(
    alice: HubServer, twins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = published(alice, twins, tmp_path)
    asked = wishes(alice, live=True, hardware="zero-a10g", votes_token="VOTES_TOKEN")
    with pytest.raises(RecipeError, match="VOTES_TOKEN is empty"):
        deploy_space(output, asked)
    monkeypatch.setenv("VOTES_TOKEN", "hf_" + "v" * 30)
    done = deploy_space(output, asked)
    files = alice.files(asked.repo, type="space")
    config = json.loads(files["space.json"])
    assert config["backend"] == "models"
    assert all(len(system["model"]["revision"]) == 40 for system in config["systems"])
    assert config["base"] is None
    assert "implicit rewards" in " ".join(done.missing), "its base is on this machine only"
    facts = front_matter(files["README.md"].decode())
    assert facts is not None
    assert facts["suggested_hardware"] == "zero-a10g"
    assert len(facts["models"]) == 2
    assert all(line.split()[2] == config["systems"][0]["model"]["revision"] for line in facts["preload_from_hub"][:1])
    assert b"torch==2.11.0" in files["requirements.txt"]
    assert alice.repo(asked.repo, "space").settings["secrets"]["HF_TOKEN"]["value"].startswith("hf_v")
    assert not [name for name, content in files.items() if b"hf_vvvv" in content], "the token is a secret and no file"


def test_what_cannot_be_deployed_is_said(alice: HubServer, twins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="is not published"):
        deploy_space(twins, wishes(alice, live=True))
    with pytest.raises(ResolutionError, match="does not belong to bob"):
        deploy_space(twins, wishes(alice, repo="bob/space-of-alice", live=False))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ResolutionError, match="token"):
        deploy_space(twins, wishes(alice, live=False))


def test_a_hub_that_breaks_off_is_an_error_of_publishing(
    alice: HubServer, twins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise our_hub.HubFailure(our_hub.Fault("away", "no answer"))

    monkeypatch.setattr(our_hub, "push_folder", away)
    with pytest.raises(PublishError, match="no answer") as error:
        deploy_space(twins, wishes(alice, live=False))
    assert error.value.exit_code == 5


def test_the_command_line_deploys(alice: HubServer, twins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo = alice.unique("space")
    assert main(["space", "deploy", str(twins), "--repo", repo, "--precomputed", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["repo"], said["votes"]) == (True, repo, f"{repo}-votes")


@pytest.mark.slow
def test_a_deployed_space_runs_from_its_own_folder(twins: Path, alone: dict[str, str], tmp_path: Path) -> None:
    """What was composed is all it needs: the package is imported from beside the app, and it is up soon."""
    folder = tmp_path / "space"
    folder.mkdir()
    compose(folder, space_of_output(twins), twins)
    environment = {**alone, "PYTHONPATH": alone["PYTHONPATH"].split(":")[0]}
    (folder / "app.py").write_text(
        (folder / "app.py")
        .read_text()
        .replace("def main()", "import inspo_hub\nprint(inspo_hub.__file__)\n\n\ndef main()")
    )
    for served in start_space(read_config(folder / "space.json"), folder, environment, app=folder / "app.py"):
        assert str(folder / "inspo_hub") in served.said()
        # Processor time: this machine may do other things. On an idle one the clock shows about the same.
        spent = sum(map(int, Path(f"/proc/{served.process.pid}/stat").read_text().split()[13:15])) / 100
        assert spent < 10
        client = gradio_client.Client(served.url, verbose=False)
        found = client.predict("", api_name="/compare")
        assert client.predict(found["round"], "tie", api_name="/vote")["winner"] == "tie"


@pytest.mark.slow
def test_preview_starts_a_page_in_one_command(twins: Path, alone: dict[str, str], tmp_path: Path) -> None:
    """And SIGTERM to the command ends the page too; votes lie beside the output."""
    port = free_port()
    code = "import sys; from inspo_hub.cli import main; sys.exit(main(sys.argv[1:]))"
    votes = tmp_path / "votes"
    command = [sys.executable, "-c", code, "space", "preview", str(twins), "--port", str(port), "--votes", str(votes)]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(command, env=alone, stdout=said, stderr=said, text=True, cwd=tmp_path)
    served = Served(f"http://127.0.0.1:{port}/", tmp_path, process)
    try:
        wait_until_up(served)
        client = gradio_client.Client(served.url, verbose=False)
        found = client.predict("", api_name="/compare")
        client.predict(found["round"], "a", api_name="/vote")
        assert [row["round"] for row in served.rows()] == [found["round"]]
    finally:
        process.terminate()
        assert process.wait(60) == 0, served.said()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(served.url, timeout=5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["preview", "nowhere"], "no trained variant"),
        (["preview", "{twins}", "--systems", "dpo,sft"], "not two systems"),
        (["preview", "{folder}/space.json"], "cannot be read"),
    ],
)
def test_what_cannot_be_previewed_is_said(
    twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["space", *(each.format(twins=twins, folder=tmp_path) for each in arguments)]) == 2
    assert told in capsys.readouterr().err


def test_the_spaces_requirements_are_those_that_are_tested_here() -> None:
    """But for torch, whose newest is too new for ZeroGPU, and what is on the Hub only."""
    here = set((ROOT / "constraints.txt").read_text().split())
    there = {line for line in (space_page() / "requirements.txt").read_text().splitlines() if line[0] != "#"}
    assert {line.split("==")[0] for line in there - here} == {"torch", "spaces"}
    card = front_matter((space_page() / "README.md").read_text())
    assert card is not None
    assert f"gradio=={card['sdk_version']}" in here


# --- outputs and commands


def test_an_output_becomes_a_configuration(twins: Path, tmp_path: Path) -> None:
    config = space_of_output(twins, systems=("base", "inspo"))
    assert config.names == ("base", "inspo")
    assert all(system.identity.startswith("sha256:") for system in config.systems)
    assert config.systems[1].description == "dpo × symmetric"
    assert config.systems[1].beta == 0.3
    assert {example.category for example in config.examples} == {"held-out"}
    for systems, told in ((("dpo",), "two of dpo, inspo, base"), (("dpo", "sft"), "not two systems")):
        with pytest.raises(RecipeError, match=told):
            space_of_output(twins, systems=systems)
    with pytest.raises(RecipeError, match="no trained variant"):
        space_of_output(tmp_path)
    with pytest.raises(RecipeError, match="is not published"):
        space_of_output(twins, backend="models", published=True)


def test_publish_leaves_a_configuration_of_commits(alice: HubServer, twins: Path, tmp_path: Path) -> None:
    output = published(alice, twins, tmp_path)
    write_config(output / "space.json", space_of_output(output, published=True))
    asked = wishes(alice)
    deploy_space(output, asked)
    config = json.loads(alice.files(asked.repo, type="space")["space.json"])
    assert all("@" in system["identity"] for system in config["systems"])


# --- votes


def _until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def scheduled(alice: HubServer, tmp_path: Path) -> Iterator[our_hub.ScheduledCommits]:
    (tmp_path / "votes").mkdir()
    found = our_hub.ScheduledCommits(
        tmp_path / "votes", alice.unique("votes"), every_minutes=100, private=True, first={"README.md": CARD}
    )
    yield found
    found.close()


def vote(tmp_path: Path, seed: int = 0) -> Any:
    service = service_of(tmp_path, Scripted(BLUE), seed=seed)
    last = list(service.compare(f"Why {seed}?", visitor="v"))[-1]
    return service.vote(last.id, "a")


def rows_on_the_hub(hub: HubServer, repo: str, kind: str = "votes") -> list[dict[str, Any]]:
    files = hub.files(repo, type="dataset")
    texts = [content.decode() for name, content in sorted(files.items()) if name.startswith(f"{kind}/")]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def test_rows_reach_the_dataset_and_its_card_stays_its_owners(
    scheduled: our_hub.ScheduledCommits, alice: HubServer, tmp_path: Path
) -> None:
    first = vote(tmp_path)
    scheduled.push_now()
    second = vote(tmp_path, 1)
    scheduled.push_now()
    repo = scheduled.repo_id
    assert {row["round"] for row in rows_on_the_hub(alice, repo)} == {first.id, second.id}
    assert len(rows_on_the_hub(alice, repo, "pairs")) == 2
    assert alice.files(repo, type="dataset")["README.md"] == CARD
    assert alice.repo(repo, "dataset").private


def test_a_push_that_fails_loses_nothing(scheduled: our_hub.ScheduledCommits, alice: HubServer, tmp_path: Path) -> None:
    _until(lambda: scheduled._scheduler is not None)
    first = vote(tmp_path)
    alice.faults.add("POST", "/commit/", Answer(500), times=None)
    with pytest.raises(our_hub.HubFailure):
        scheduled.push_now()
    second = vote(tmp_path, 1)
    alice.faults.clear()
    scheduled.push_now()
    assert {row["round"] for row in rows_on_the_hub(alice, scheduled.repo_id)} == {first.id, second.id}


def test_a_hub_that_is_away_at_the_start_is_tried_again(alice: HubServer, tmp_path: Path) -> None:
    first = vote(tmp_path)
    alice.faults.add("POST", "/api/repos/create", Answer(503), times=None)
    found = our_hub.ScheduledCommits(tmp_path / "votes", alice.unique("votes"), every_minutes=0.005, private=True)
    try:
        time.sleep(0.5)
        alice.faults.clear()
        _until(lambda: found._scheduler is not None)
        found.push_now()
        assert [row["round"] for row in rows_on_the_hub(alice, found.repo_id)] == [first.id]
    finally:
        found.close()


def test_earlier_votes_are_learnt_from_the_hub(alice: HubServer, shown: SpaceConfig, tmp_path: Path) -> None:
    repo = alice.unique("votes")
    config = shown.model_copy(update={"votes": VotesSection(repo=repo, every_minutes=100)})
    service, schedule = open_service(config, tmp_path, tmp_path / "here")
    assert schedule is not None
    last = list(service.compare("", visitor="v"))[-1]
    service.vote(last.id, "a")
    schedule.close()
    again, later = open_service(config, tmp_path, tmp_path / "elsewhere")
    assert later is not None
    try:
        _until(lambda: len(again.store.rows) == 1)
        assert again.store.rows == service.store.rows
    finally:
        later.close()


def test_votes_train_the_next_models(twins: Path, tmp_path: Path) -> None:
    """recipes/from_votes.yaml on a few votes, from the folder that the dataset is a copy of."""
    from inspo_hub.recipe.shipped import shipped_folder
    from inspo_hub.space.votes import dataset_card
    from tests.space.conftest import QUICKSTART

    for seed in range(6):
        vote(tmp_path, seed)
    store = VoteStore(tmp_path / "votes")
    assert len(store.rows) == 6
    (tmp_path / "votes" / "README.md").write_text(dataset_card(space_of_output(twins)))
    changes = [
        f"model.id={QUICKSTART / 'base'}",
        f"data.train=[{{id: {tmp_path / 'votes'}, config: pairs}}]",
        "data.max_length=256",
        "data.heldout.fraction=0.2",
        "train.epochs=1",
        "train.pairs_per_step=3",
    ]
    sets = [word for change in changes for word in ("--set", change)]
    recipe = str(shipped_folder() / "from_votes.yaml")
    assert main(["run", recipe, *sets, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "inspo" / "model.safetensors").is_file()
