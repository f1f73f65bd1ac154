"""Jobs whose commands really run: the recipe unpacked from the request, trained, published, lost, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inspo_hub.recipe import load_recipe
from tests.hub_server import HubServer
from tests.hub_server.faults import Do
from tests.hub_server.jobs import Job
from tests.hub_server.process import environment, traffic_of
from tests.submitting.conftest import Desk

pytestmark = pytest.mark.slow

UV = """\
#!/bin/bash
# What the image's uv does, without the network: the packages are there already.
[ "$1 $2 $3" = "run --no-project --with" ] || exit 64
shift 4
[ "$1" = python ] || exit 64
shift
exec "{python}" "$@"
"""


class Container:
    """Runs a Job's command in a folder of its own, with the environment and the secrets of its request."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.process: subprocess.Popen[str] | None = None
        self.homes: list[Path] = []
        (folder / "bin").mkdir(parents=True)
        uv = folder / "bin" / "uv"
        uv.write_text(UV.format(python=sys.executable))
        uv.chmod(0o755)

    def __call__(self, job: Job) -> None:
        home = self.folder / job.id
        home.mkdir()
        self.homes.append(home)
        env = environment(self.hub, home) | job.spec["environment"] | job.spec["secrets"]
        env["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{env['PATH']}"
        job.start()
        with subprocess.Popen(
            job.spec["command"],
            cwd=home,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            self.process = process
            timer = threading.Timer(200, lambda: os.killpg(process.pid, signal.SIGKILL))
            timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                job.say(line.rstrip("\n"))
            timer.cancel()
        job.finish("COMPLETED" if process.returncode == 0 else "ERROR", f"exit code {process.returncode}")

    def take_away(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)


def test_a_recipe_is_trained_by_a_job_that_is_lost_and_by_one_that_goes_on(desk: Desk, tmp_path: Path) -> None:
    container = Container(desk.hub, tmp_path / "container")
    desk.hub.machine = container
    desk.hub.faults.add("POST", "/commit/checkpoints", Do(container.take_away, "after"))
    told = desk.submit()
    assert told.exit_code == 0, told.out + told.err
    assert len(desk.jobs) == 2
    assert "resuming from step" in told.out

    recipe = load_recipe(desk.recipe)
    files = desk.hub.files(desk.repo)
    assert {"model.safetensors", "lock.json", "recipe.yaml"} <= set(files)
    assert json.loads(files["lock.json"])["recipe_sha256"] == recipe.sha256()
    assert recipe.sha256() in files["README.md"].decode()
    assert [job.spec["labels"]["inspo-recipe"] for job in desk.jobs] == [recipe.sha256()[:40]] * 2
    assert not any(traffic_of(home) for home in container.homes)
