"""The Hub goes wrong while a run publishes: training neither waits nor dies, nothing is lost, one command finishes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.hub_server import Answer, Do, Drop, HubServer, Slow

from .conftest import STEPS, Machine, Whole, World, copied, killed_after, titles

AT_ONCE = "0.02"
"""Minutes that the end of these runs waits: about a second."""


def assert_all_is_there(hub: HubServer, repo: str, output: Path) -> None:
    """The result with its card, byte for byte as on disk."""
    published = hub.files(repo)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "lock.json", "metrics.jsonl", "README.md"):
        assert published[name] == (output / name).read_bytes(), name


def test_every_commit_refused_for_the_whole_run(hub: HubServer, machine: Machine, world: World, whole: Whole) -> None:
    repo = hub.unique("refused", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo, "strategy": "end", "wait_minutes": float(AT_ONCE)})
    rule = hub.faults.add("POST", "/commit/", Answer(403, "no commits today"), times=None)
    told = machine.run(expect=5)
    assert rule.hits
    variant = told["variants"]["tiny"]["published"]
    assert [each["what"] for each in variant["missing"]] == ["weights", "card"]
    assert "no commits today" in variant["missing"][0]["reason"]
    assert f"finish with: inspo-hub publish {machine.output()}" in machine.said[-1]
    assert machine.weights() == whole.machine.weights(), "training did not notice"
    assert set(hub.files(repo)) == set()
    assert machine.cli("publish", str(machine.output()), "--wait", AT_ONCE, expect=5)["exit_code"] == 5
    hub.faults.clear()
    done = machine.cli("publish", str(machine.output()))
    assert (done["ok"], done["variants"]["tiny"]["missing"]) == (True, [])
    assert_all_is_there(hub, repo, machine.output())
    assert titles(hub, repo) == [f"Model after step {STEPS}", "Model card"]
    assert machine.cli("publish", str(machine.output()))["ok"]
    assert len(titles(hub, repo)) == 2, "everything stands there: nothing is committed again"
    assert json.loads((machine.output() / "published.json").read_text(encoding="utf-8"))["complete"]


@pytest.mark.slow
def test_the_hub_goes_away_during_training(hub: HubServer, machine: Machine, world: World, whole: Whole) -> None:
    repo = hub.unique("away", "alice")
    publish = {"repo": repo, "strategy": "every_save", "wait_minutes": float(AT_ONCE)}
    machine.write_recipe(world.recipe, publish=publish)
    stopping = threading.Thread(target=hub.stop)
    hub.faults.add("POST", "/commit/", Do(stopping.start))
    told = machine.run(expect=5)
    stopping.join()
    assert not hub.running
    missing = told["variants"]["tiny"]["published"]["missing"]
    assert [(each["what"], each["step"]) for each in missing] == [("weights", STEPS), ("card", STEPS)]
    assert machine.weights() == whole.machine.weights()
    card = (machine.output() / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card, "what the card needs of the Hub was read before training"
    hub.start()
    assert machine.cli("publish", str(machine.output()))["ok"]
    assert_all_is_there(hub, repo, machine.output())


@pytest.mark.slow
def test_training_does_not_wait_for_a_silent_hub(hub: HubServer, machine: Machine, world: World) -> None:
    silence = 30.0
    repo = hub.unique("silent", "alice")
    publish = {"repo": repo, "strategy": "every_save", "wait_minutes": float(AT_ONCE)}
    machine.write_recipe(world.recipe, publish=publish)
    rule = hub.faults.add("POST", "/preupload/|/commit/", Slow(silence), times=None)
    told = machine.run(expect=5)
    assert rule.hits, "a push was on its way while training went on"
    timings = (machine.output() / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(2 * json.loads(line)["seconds_per_step"] for line in timings) < silence / 2
    assert told["variants"]["tiny"]["published"]["missing"]
    spool = machine.output() / ".publish"
    assert len([path for path in spool.iterdir() if path.is_dir()]) <= 2, "one on its way, one that waits"


@pytest.mark.slow
def test_the_answer_to_a_commit_is_lost(hub: HubServer, machine: Machine, world: World) -> None:
    repo = hub.unique("lost", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo, "strategy": "every_save"})
    first = hub.faults.add("POST", "/commit/", Drop("after"))
    card = hub.faults.add("POST", "/commit/", Drop("after"), skip=1)
    assert machine.run()["variants"]["tiny"]["published"]["complete"]
    assert first.hits + card.hits == 2
    assert_all_is_there(hub, repo, machine.output())
    commits = titles(hub, repo)
    assert len(commits) == len(set(commits)), f"committed twice: {commits}"


@pytest.mark.slow
def test_killed_during_the_upload_the_same_command_finishes_it(
    hub: HubServer, machine: Machine, world: World, whole: Whole
) -> None:
    repo = hub.unique("killed", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo, "strategy": "end"})
    killed_after(hub, machine, "/info/lfs/objects/batch")
    assert not titles(hub, repo)
    assert [path for path in (machine.output() / ".publish").iterdir() if path.is_dir()], "the result is kept"
    before = (machine.output() / "model.safetensors").stat().st_mtime_ns
    assert machine.run()["ok"]
    assert (machine.output() / "model.safetensors").stat().st_mtime_ns == before, "nothing is trained again"
    assert machine.weights() == whole.machine.weights()
    assert_all_is_there(hub, repo, machine.output())
    assert titles(hub, repo) == [f"Model after step {STEPS}", "Model card"]


def test_a_card_that_the_hub_refuses_keeps_no_weights_back(hub: HubServer, whole: Whole, machine: Machine) -> None:
    """Published anew under another name: the output of a run is all that it takes."""
    repo = hub.unique("card", "alice")
    hub.faults.add("POST", "/commit/", Answer(400, "Invalid metadata in README.md"), skip=1, times=None)
    output = str(copied(whole, machine))
    told = machine.cli("publish", output, "--repo", repo, "--wait", AT_ONCE, expect=5)
    assert [each["what"] for each in told["variants"]["tiny"]["missing"]] == ["card"]
    assert hub.files(repo)["model.safetensors"] == whole.machine.weights()
    hub.faults.clear()
    assert machine.cli("publish", output)["ok"], "where to is remembered"
    assert f"inspo-hub reproduce {repo}" in hub.files(repo)["README.md"].decode()
