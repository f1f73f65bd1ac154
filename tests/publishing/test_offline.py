"""The Hub is away from the start: the same commits from the cache, or a refusal; never another revision's rows."""

from __future__ import annotations

import pytest

from tests.hub_server import HubServer

from .conftest import Machine, Whole, World


@pytest.mark.slow
def test_the_cache_serves_commits_and_nothing_else(
    hub: HubServer, machine: Machine, world: World, whole: Whole
) -> None:
    """The rows move after the first run: a later commit is in the cache too, and is never taken for the earlier."""
    mine = world.copy()
    machine.write_recipe(mine.recipe)
    machine.run("--set", "train.max_steps=2", output="first")
    rows = hub.head(mine.rows, type="dataset")
    later = hub.commit(mine.rows, {"train.jsonl": mine.row_files["test.jsonl"]}, type="dataset")
    fetched = machine.cli("preview", str(machine.recipe), "-n", "1")
    assert fetched["ok"], "the later commit's rows are downloaded"
    hub.stop()

    told = machine.run(expect=3, output="unpinned")
    assert "the Hub cannot be reached" in told["what"]
    assert "may have moved since it was cached" in told["what"]
    assert f"set its revision to the cached commit {later}" in machine.said[-1]
    assert not machine.output("unpinned").exists()

    pinned = [f"model.revision={hub.head(mine.base)}"]
    pinned += [f"data.{part}.0.revision={rows}" for part in ("train", "heldout")]
    machine.run(*(word for setting in pinned for word in ("--set", setting)), output="pinned")
    assert machine.weights("pinned") == whole.machine.weights()

    done = machine.run("--set", "train.max_steps=2", output="first")
    assert done["ok"], "a run goes on with the commits of its lock"
