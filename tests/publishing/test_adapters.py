"""An adapter on the Hub: published beside its base, resumed on another machine, loaded by plain peft."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.hub_server import HubServer

from .conftest import Machine, World, kill_after_the_first_checkpoint, other_machine

ADAPTER = ("--set", "adapter.r=4")
NAMES = {"adapter_model.safetensors", "adapter_config.json"}


@pytest.mark.slow
def test_an_adapter_is_published_and_goes_on_from_the_hub(
    hub: HubServer, machine: Machine, world: World, tmp_path: Path
) -> None:
    repo = hub.unique("adapter", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo, "strategy": "checkpoint"})
    kill_after_the_first_checkpoint(hub, machine, *ADAPTER)

    there = other_machine(machine, tmp_path)
    told = there.run(*ADAPTER, "--resume", "hub")
    assert told["variants"]["tiny"]["published"]["complete"]
    assert "resuming from step" in there.said[-1]
    _check_repository(hub, repo, world)

    alone = other_machine(machine, tmp_path, "alone")
    alone.write_recipe(world.recipe)
    alone.run(*ADAPTER)
    assert hub.files(repo)["adapter_model.safetensors"] == (alone.output() / "adapter_model.safetensors").read_bytes()
    assert there.records() == alone.records(), "every line once, as without a kill"


def _check_repository(hub: HubServer, repo: str, world: World) -> None:
    files = hub.files(repo)
    assert set(files) >= NAMES
    assert "model.safetensors" not in files, "the base is not copied"
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == world.base
    data = ModelCard(files["README.md"].decode()).data.to_dict()
    assert (data["base_model"], data["base_model_relation"], data["library_name"]) == (world.base, "adapter", "peft")
