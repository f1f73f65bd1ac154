"""The Hub is away from the start: the same commits from the cache, or a refusal; never another revision's rows."""

from __future__ import annotations

import json

import pytest

from tests.hub_server import HubServer
from tests.hub_server.process import run_with_hub

from .conftest import Machine, Whole, World

AWAY = """
    import json, sys
    from inspo_hub.cli import main

    for command in json.loads(sys.argv[1]):
        code = main(["run", "recipe.yaml", "--json", *command])
        print(json.dumps({"returned": code}), flush=True)
"""
"""In one process, because importing takes longest."""


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
    fetch = f"from inspo_hub import hub; hub.fetch(hub.resolve('dataset', '{mine.rows}'))"
    run_with_hub(hub, fetch, home=machine.home)
    hub.stop()

    revisions = {"model": hub.head(mine.base), "data.train.0": rows, "data.heldout.0": rows}
    pinned = [word for key, sha in revisions.items() for word in ("--set", f"{key}.revision={sha}")]
    commands = [
        ["--output", "unpinned"],
        ["--output", "pinned", *pinned],
        ["--output", "first", "--set", "train.max_steps=2"],
    ]
    done = _run_all(hub, machine, commands)
    unpinned, on_with_its_lock = done[0], done[2]
    assert unpinned["exit_code"] == 3
    assert "the Hub cannot be reached" in unpinned["what"]
    assert "may have moved since it was cached" in unpinned["what"]
    assert f"set its revision to the cached commit {later}" in unpinned["what"]
    assert not machine.output("unpinned").exists()
    assert machine.weights("pinned") == whole.machine.weights()
    assert on_with_its_lock["ok"], "a run goes on with the commits of its lock"


def _run_all(hub: HubServer, machine: Machine, commands: list[list[str]]) -> list[dict[str, object]]:
    """What `run --json` says to each command."""
    import textwrap

    arguments = ["-c", textwrap.dedent(AWAY), json.dumps(commands)]
    done = run_with_hub(hub, arguments, home=machine.home, timeout=250)
    return [json.loads(line) for line in done.stdout.splitlines()][::2]
