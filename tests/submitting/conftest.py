"""Alice's recipe, whose base and pairs lie on the test Hub, and machines that play its Jobs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inspo_hub import planning
from inspo_hub.cli import main
from inspo_hub.plan.results import Estimate
from inspo_hub.recipe import Recipe
from inspo_hub.submitting import following
from tests.hub.conftest import alice
from tests.hub_server import HubServer
from tests.hub_server.jobs import Job
from tests.publishing.conftest import World, world

__all__ = ["alice", "world"]

_plan_recipe = planning.plan_recipe
_plans: dict[str, Estimate] = {}


def planned_once(recipe: Recipe, *, flavor: str, gpus: int | None) -> Estimate:
    """The real estimate; of one recipe and machine it is made once."""
    key = (recipe.model, recipe.data, recipe.train, flavor, gpus)
    if repr(key) not in _plans:
        _plans[repr(key)] = _plan_recipe(recipe, flavor=flavor, gpus=gpus)
    return _plans[repr(key)]


FOR_A_CPU = ("--flavor", "cpu-basic")


@dataclass(frozen=True)
class Told:
    """What a command said."""

    exit_code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        assert self.out.count("\n") == 1, self.out
        return dict(json.loads(self.out))


@dataclass
class Desk:
    """Where Alice sits: her recipe, and `inspo-hub submit`."""

    hub: HubServer
    world: World
    recipe: Path
    repo: str
    capsys: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture

    def write(self, more: str = "", *, strategy: str | None = "checkpoint", recipe: str | None = None) -> None:
        publish = f"publish: {{repo: {self.repo}, strategy: {strategy}}}\n" if strategy else ""
        self.recipe.write_text((recipe or self.world.recipe) + publish + more, encoding="utf-8")

    def submit(self, *arguments: str | Path) -> Told:
        self.capsys.readouterr()
        self.caplog.clear()
        exit_code = main(["submit", str(self.recipe), *FOR_A_CPU, *map(str, arguments)])
        said = self.capsys.readouterr()
        # Under pytest, logging is set up already, and so does not go to stderr.
        return Told(exit_code, said.out, self.caplog.text + said.err)

    @property
    def jobs(self) -> list[Job]:
        """Those of this recipe's repository, oldest first."""
        return [job for job in self.hub.jobs.values() if job.namespace == "alice"]


@pytest.fixture
def desk(
    alice: HubServer,
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    caplog.set_level(logging.INFO, "inspo_hub")
    monkeypatch.setattr(planning, "plan_recipe", planned_once)
    monkeypatch.setattr(following, "POLL_S", 0.05)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    alice.jobs.clear()
    made = Desk(alice, world, tmp_path / "recipe.yaml", alice.unique("submitted", "alice"), capsys, caplog)
    made.write()
    yield made
    for job in alice.jobs.values():
        job.finish("CANCELED")


def plays(*acts: Callable[[Job], None]) -> Callable[[Job], None]:
    """A machine that plays one act for each Job in turn, and the last one for all that follow."""
    left = list(acts)

    def machine(job: Job) -> None:
        job.start()
        (left.pop(0) if len(left) > 1 else left[0])(job)

    return machine


def ends(exit_code: int, *lines: str) -> Callable[[Job], None]:
    """A run that ends by itself, with its last line as the request's script prints it."""

    def act(job: Job) -> None:
        for line in (*lines, f"inspo_hub: exit code {exit_code}"):
            job.say(line)
        job.finish("COMPLETED" if exit_code == 0 else "ERROR", None if exit_code == 0 else "Job failed")

    return act


def lost(*lines: str, message: str = "Node was taken away") -> Callable[[Job], None]:
    """A machine that goes away in the middle."""

    def act(job: Job) -> None:
        for line in lines:
            job.say(line)
        job.finish("ERROR", message)

    return act
