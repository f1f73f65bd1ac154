"""A run goes on where another machine stopped, from the Hub; and what moved since it began does not move under it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspo_hub.cli import main
from inspo_hub.hub import bytes_hash
from inspo_hub.hub.checkpoints import MANIFEST, manifest
from tests.hub_server import HubServer

from .conftest import STEPS, Machine, Whole, World, kill_after_the_first_checkpoint, other_machine


@pytest.mark.slow
def test_another_machine_goes_on_from_the_hub_to_the_same_bits(
    hub: HubServer, machine: Machine, world: World, whole: Whole, tmp_path: Path
) -> None:
    """Killed when its first checkpoint is published; then an incomplete push, and the base's branch moves."""
    mine, repo = world.copy(), hub.unique("resumed", "alice")
    machine.write_recipe(mine.recipe, publish={"repo": repo, "strategy": "checkpoint"})
    kill_after_the_first_checkpoint(hub, machine)
    first, moved_from = _step_of_branch(hub, repo), hub.head(mine.base)
    assert first < STEPS
    _push_incomplete(hub, repo)
    hub.commit(mine.base, {"chat_template.jinja": "{{ 'another template' }}"}, title="moved")

    there = other_machine(machine, tmp_path)
    told = there.run("--resume", "hub")
    assert told["variants"]["tiny"]["published"]["complete"]
    assert f"resuming from step {first} of {repo}" in there.said[-1]
    assert "holds no whole checkpoint; looking at the commit before" in there.said[-1]
    assert there.weights() == whole.machine.weights(), "the weights of an uninterrupted run, bit for bit"
    assert there.records() == whole.machine.records(), "every line once"
    lock = json.loads((there.output() / "lock.json").read_text(encoding="utf-8"))
    assert lock["pins"]["model"]["sha"] == moved_from, "the commit that the run began with"
    assert hub.files(repo)["model.safetensors"] == whole.machine.weights()

    there.run("--frozen", expect=3)
    said = there.said[-1]
    assert f"model: {mine.base} (main) was at {moved_from}, is at {hub.head(mine.base)}" in said
    assert "chat template:" in said


def _step_of_branch(hub: HubServer, repo: str) -> int:
    return int(json.loads(hub.files(repo, "checkpoints")[MANIFEST])["step"])


def _push_incomplete(hub: HubServer, repo: str) -> None:
    """A later checkpoint as an interrupted upload leaves it: its manifest lists what is not all there."""
    files = hub.files(repo, "checkpoints")
    state = {name: content for name, content in files.items() if name.startswith("last-checkpoint/")}
    del state[MANIFEST]
    later = {**state, "last-checkpoint/model.safetensors": b"\0" * 1000}
    said = manifest(STEPS - 1, {name: bytes_hash(content) for name, content in later.items()})
    hub.commit(repo, {MANIFEST: said}, revision="checkpoints", title=f"Checkpoint at step {STEPS - 1}")


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [("--frozen", 3, "there is no lock"), ("--resume=hub", 2, "the recipe publishes nothing")],
)
def test_what_is_not_there_is_not_gone_on_with(
    as_alice: HubServer,
    machine: Machine,
    world: World,
    capsys: pytest.CaptureFixture[str],
    argument: str,
    code: int,
    said: str,
) -> None:
    machine.write_recipe(world.recipe)
    assert main(["run", str(machine.recipe), "--output", str(machine.output()), argument]) == code
    assert said in capsys.readouterr().err
    assert not machine.output().exists()
