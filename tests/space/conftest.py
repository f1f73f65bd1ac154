"""A tiny run of twins, Spaces launched in this process on it, and a real browser where there is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.recipe.shipped import shipped_folder
from inspo_hub.space import SpaceConfig, space_of_output, space_page, write_config
from tests.hub_server.guard import guard_environment
from tests.hub_server.process import ROOT, traffic_of

sys.path.insert(0, str(space_page()))
QUICKSTART = shipped_folder() / "quickstart"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = Path(os.environ.get("INSPO_SCREENSHOTS", Path(__file__).parents[2] / "outputs" / "screenshots"))
"""Where the browser's pictures of the page are kept, for people to look at."""
QUESTION = "Describe the otter for my little sister. Be brief."


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a real run: one step of twins on the quickstart's base, eight prompts answered and judged."""
    from inspo_hub.cli import main

    folder = tmp_path_factory.mktemp("twins")
    recipe = {
        "version": 1,
        "name": "tiny",
        "description": "Twins of the tests",
        "model": {"id": str(QUICKSTART / "base"), "compute_dtype": "float32"},
        "data": {"train": [{"id": str(QUICKSTART / "train.jsonl"), "limit": 12}], "max_length": 512},
        "objective": {"name": "dpo", "beta": 0.3},
        "alternative": {"turn_text": "Please answer the same question again."},
        "train": {"lr": 3e-3, "pairs_per_step": 12, "tokens_per_microbatch": 8192, "log_every": 1},
        "evaluate": {
            "prompts": {"id": str(QUICKSTART / "prompts.jsonl")},
            "judge": {"python": f"{QUICKSTART / 'judge.py'}:score"},
            "max_new_tokens": 64,
            "limit": 8,
            "bootstrap": 50,
        },
        "variants": {"dpo": {"conditioning": "none"}, "inspo": {"conditioning": "symmetric"}},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["run", str(folder / "recipe.yaml"), "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture(scope="session")
def shown(twins: Path) -> SpaceConfig:
    """A Space of the evaluation's answers."""
    return space_of_output(twins)


@pytest.fixture(scope="session")
def live(twins: Path) -> SpaceConfig:
    """A Space whose models answer."""
    config = space_of_output(twins, backend="models")
    limits = config.limits.model_copy(update={"rounds_per_minute": 1000})
    return config.model_copy(update={"limits": limits})


@dataclass(frozen=True)
class Served:
    """A Space that its own app.py serves, in a process that knows nothing but loopback."""

    url: str
    folder: Path
    process: subprocess.Popen[str]

    def rows(self, kind: str = "votes") -> list[dict[str, Any]]:
        """Rows that lie on this machine's disk."""
        files = sorted((self.folder / "votes" / kind).glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    def said(self) -> str:
        return (self.folder / "said.txt").read_text(encoding="utf-8")


def start_space(
    config: SpaceConfig, folder: Path, environment: Mapping[str, str], *, app: Path | None = None
) -> Iterator[Served]:
    """Serves the Space of a configuration while its user goes on; it must have reached for no other machine."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / "space.json", config)
    port = free_port()
    own = {
        "INSPO_SPACE_CONFIG": str(folder / "space.json"),
        "INSPO_SPACE_VOTES": str(folder / "votes"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
    }
    program = app or space_page() / "app.py"
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, str(program)], env={**environment, **own}, stdout=said, stderr=said, text=True, cwd=folder
        )
    served = Served(f"http://127.0.0.1:{port}/", folder, process)
    try:
        wait_until_up(served)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in served.said(), served.said()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(served: Served, seconds: float = 120) -> None:
    """Until the Space answers; fails with what it said where it ends instead."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert served.process.poll() is None, served.said()
        try:
            with urllib.request.urlopen(f"{served.url}gradio_api/info", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the Space did not come up:\n{served.said()}")


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment without Hub: every attempt to leave loopback is refused and noted."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    guarded = guard_environment(home / "traffic.log")
    paths = {"HOME": str(home), "PYTHONPATH": os.pathsep.join([guarded.pop("PYTHONPATH"), str(ROOT)])}
    yield {**kept, **guarded, **paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    tried = traffic_of(home)
    assert not tried, f"traffic left the machine: {tried}"


@pytest.fixture(scope="session")
def live_space(live: SpaceConfig, alone: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served Space whose models answer; shared, so tests count from what they find."""
    yield from start_space(live, tmp_path_factory.mktemp("live"), alone)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser, headless. Of one module: while Playwright is there, nobody else can run an event loop."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()
