"""Whole runs against the test Hub: base model and pairs lie there, each run is a process with a home of its own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Do, HubServer
from tests.hub_server.process import run_with_hub, start_with_hub
from tests.training.conftest import make_project, make_rows

RECIPE = """\
version: 1
name: tiny
description: a run of the tests
model: {{id: {base}}}
data:
  train: [{{id: {rows}}}]
  heldout: [{{id: {rows}, split: test}}]
  max_length: 256
alternative: {{turn_text: again}}
objective: {{name: dpo, beta: 0.5}}
conditioning: symmetric
train: {{lr: 3e-3, pairs_per_step: 6, epochs: 1, log_every: 2, save_every: 2, tokens_per_microbatch: 800}}
"""
STEPS = 8
"""Of a run: 45 pairs, 6 a step; saves after 2, 4, 6 and 8."""
BASE_CARD = "---\nlicense: apache-2.0\n---\n# A base of the tests\n"


@dataclass(frozen=True)
class Machine:
    """A computer that knows nothing but the test Hub: a home, a recipe, and the commands that are run there."""

    server: HubServer
    home: Path
    token: str | None = None
    xet: bool = False
    said: list[str] = field(default_factory=list)
    """Everything that its commands printed."""

    @property
    def recipe(self) -> Path:
        return self.home / "recipe.yaml"

    def output(self, name: str = "out") -> Path:
        return self.home / name

    def write_recipe(self, text: str, *, publish: Mapping[str, object] | None = None) -> None:
        more = "" if publish is None else f"publish: {json.dumps(publish)}\n"
        self.recipe.write_text(text + more, encoding="utf-8")

    def run(self, *arguments: str, expect: int = 0, output: str = "out", **environment: str) -> dict[str, Any]:
        """Runs the recipe; the object that `--json` prints."""
        command = ["-m", "inspo_hub.run", str(self.recipe), "--output", str(self.output(output)), "--json", *arguments]
        return self._json(command, expect, environment)

    def cli(self, *arguments: str, expect: int = 0, **environment: str) -> dict[str, Any]:
        """Any other command; the object that `--json` prints."""
        return self._json(["-m", "tests.publishing.cli", *arguments, "--json"], expect, environment)

    def _json(self, command: list[str], expect: int, environment: Mapping[str, str]) -> dict[str, Any]:
        done = run_with_hub(
            self.server, command, home=self.home, token=self.token, xet=self.xet, env=environment, check=False
        )
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == expect, f"exit {done.returncode}, not {expect}\n{done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout))

    def start(self, *arguments: str, output: str = "out") -> subprocess.Popen[str]:
        """Starts the recipe, for tests that kill it."""
        command = ["-m", "inspo_hub.run", str(self.recipe), "--output", str(self.output(output)), *arguments]
        return start_with_hub(self.server, command, home=self.home, token=self.token, xet=self.xet)

    def records(self, output: str = "out") -> list[dict[str, Any]]:
        lines = (self.output(output) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def weights(self, output: str = "out") -> bytes:
        return (self.output(output) / "model.safetensors").read_bytes()


@dataclass(frozen=True)
class World:
    """What lies on the Hub before a run: the base and the pairs, by their ids."""

    server: HubServer
    base_files: Mapping[str, bytes]
    row_files: Mapping[str, bytes]
    base: str
    rows: str

    @property
    def recipe(self) -> str:
        return RECIPE.format(base=self.base, rows=self.rows)

    def copy(self) -> World:
        """The same under ids of its own, for tests that move branches or close gates."""
        base, rows = self.server.unique("base", "bob"), self.server.unique("rows", "bob")
        self.server.create_repo(base, dict(self.base_files))
        self.server.create_repo(rows, dict(self.row_files), type="dataset")
        return World(self.server, self.base_files, self.row_files, base, rows)


@pytest.fixture(scope="session")
def world(_hub_session: HubServer, tmp_path_factory: pytest.TempPathFactory) -> World:
    project = make_project(tmp_path_factory.mktemp("project"))
    base = {path.name: path.read_bytes() for path in (project.folder / "base").iterdir()}
    rows = {name: _jsonl(count, seed) for name, count, seed in (("train.jsonl", 45, 0), ("test.jsonl", 5, 1))}
    files = {**base, "README.md": BASE_CARD.encode()}
    return World(_hub_session, files, {**rows, "README.md": b"# Pairs of the tests\n"}, "", "").copy()


def _jsonl(count: int, seed: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in make_rows(count, seed)).encode()


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run with `strategy: checkpoint` and what it left on the Hub."""

    machine: Machine
    repo: str
    told: dict[str, Any]


@pytest.fixture(scope="session")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    server = world.server
    machine = Machine(server, tmp_path_factory.mktemp("whole"), server.add_token("alice"))
    repo = server.unique("whole", "alice")
    machine.write_recipe(world.recipe, publish={"repo": repo, "strategy": "checkpoint"})
    told = machine.run()
    assert not server.complaints()
    return Whole(machine, repo, told)


@pytest.fixture
def machine(hub: HubServer, tmp_path: Path) -> Machine:
    """A fresh computer of alice, whose token may write."""
    return Machine(hub, new_home(tmp_path, "here"), hub.add_token("alice"))


@pytest.fixture
def as_alice(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """This process speaks to the Hub as alice: for commands that train nothing, and so need no process of their own."""
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    return hub


def new_home(folder: Path, name: str) -> Path:
    home = folder / name
    home.mkdir()
    return home


def other_machine(machine: Machine, folder: Path, name: str = "elsewhere") -> Machine:
    """Another computer with the same recipe and token, and nothing else."""
    there = Machine(machine.server, new_home(folder, name), machine.token, machine.xet)
    shutil.copy2(machine.recipe, there.recipe)
    return there


def copied(whole: Whole, machine: Machine) -> Path:
    """The output of the uninterrupted run, as somebody copied it, without what was published of it."""
    left_out = shutil.ignore_patterns(".publish", "checkpoints")
    return shutil.copytree(whole.machine.output(), machine.output(), ignore=left_out)


def titles(hub: HubServer, repo: str, revision: str = "main", *, type: str = "model") -> list[str]:
    """The titles of a branch's commits, oldest first, without the one that the Hub makes itself."""
    return [commit.title for commit in reversed(hub.history(repo, revision, type=type))][1:]


def killed_after(hub: HubServer, machine: Machine, path: str, *arguments: str) -> None:
    """Starts the recipe, and kills it when the Hub has carried out its first POST to such a path."""
    process = None

    def kill() -> None:
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()

    rule = hub.faults.add("POST", path, Do(kill, "after"))
    process = machine.start(*arguments)
    said, _ = process.communicate(timeout=200)
    assert (rule.hits, process.returncode) == (1, -signal.SIGKILL), said


def kill_after_the_first_checkpoint(hub: HubServer, machine: Machine, *arguments: str) -> None:
    """Starts the recipe, and kills it when its first checkpoint stands on the Hub."""
    killed_after(hub, machine, "/commit/checkpoints", *arguments)
    assert not (machine.output() / "trained.json").exists(), "it was killed while it trained"
