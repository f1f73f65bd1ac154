"""The pytest fixtures; `tests/conftest.py` names this module as a plugin, so every test can ask for them.

`hub` is the server, cleaned before and judged after each test, and the default endpoint of huggingface_hub in this
process while the test runs. `hub_process` runs Python in a subprocess that knows only it. Every test is watched for
traffic to elsewhere.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import guard, process
from .server import HubServer

guard.watch()


@pytest.fixture(autouse=True)
def _no_traffic_outside(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test during which this process reached for another machine; tests marked `hub` may."""
    guard.violations.clear()
    guard.allowed = request.node.get_closest_marker("hub") is not None
    yield
    guard.allowed = False
    assert not guard.violations, f"traffic left the machine: {guard.violations}"


@pytest.fixture(scope="session")
def _hub_session() -> Iterator[HubServer]:
    server = HubServer()
    server.start()
    server.add_user("alice", organisations=["acme"])
    server.add_user("bob")
    yield server
    server.stop()


@pytest.fixture
def hub(_hub_session: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub, with the users alice (who may also write to the organisation acme) and bob.

    Take repository names from `hub.unique("model")`: the server lives as long as the session. After the test, requests
    without a route, crashes of the server, and tokens that reached the file storage fail it.
    """
    import huggingface_hub  # here and below: tests that need no Hub shall not wait for its client

    server = _hub_session
    server.reset()
    point_client_at(server, tmp_path / "hf_home", monkeypatch)
    yield server
    huggingface_hub.close_session()
    complaints = server.complaints()
    server.reset()
    assert not complaints, "\n".join(complaints)


def point_client_at(server: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the Hub the default of huggingface_hub in this process: endpoint, a home of its own, no token, no Xet.

    The client reads its environment when it is imported; and even with `HfApi(endpoint=...)` its first request, for the
    registry of coding agents, goes to the default endpoint.
    """
    from huggingface_hub import constants, hf_api

    changes: dict[str, Any] = {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HUGGINGFACE_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(home / "agent_harnesses.json"),
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in changes.items():
        # An older client lacks some of these: what it does not have it does not read.
        monkeypatch.setattr(constants, name, value, raising=False)
    monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the client of this process would have waited to try again; it does not wait."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    asked: list[float] = []

    class Clock:
        sleep = staticmethod(asked.append)

        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", Clock())
    return asked


@dataclass(frozen=True)
class HubProcess:
    """Runs Python where there is nothing but the test Hub; all runs of a test share a home, and so its caches."""

    server: HubServer
    home: Path

    def run(
        self,
        code: str | Sequence[str],
        *,
        token: str | None = None,
        xet: bool = False,
        env: Mapping[str, str] | None = None,
        home: Path | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        return process.run_with_hub(
            self.server,
            code,
            home=home or self.home,
            token=token,
            xet=xet,
            env=env,
            cwd=cwd,
            timeout=timeout,
            check=check,
        )

    def start(
        self,
        code: str | Sequence[str],
        *,
        token: str | None = None,
        xet: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        return process.start_with_hub(self.server, code, home=self.home, token=token, xet=xet, env=env, cwd=cwd)

    def environment(self, *, token: str | None = None, xet: bool = False, **more: str) -> dict[str, str]:
        """For commands that are not Python's: `subprocess.run([...], env=hub_process.environment(token=...))`."""
        return process.environment(self.server, self.home, token=token, xet=xet, **more)

    def fresh_home(self, name: str) -> Path:
        """The home of another machine: pass it as `home`."""
        home = self.home.parent / name
        home.mkdir()
        return home


@pytest.fixture
def hub_process(hub: HubServer, tmp_path: Path) -> Iterator[HubProcess]:
    home = tmp_path / "home"
    home.mkdir()
    yield HubProcess(hub, home)
    tried = process.traffic_of(home)
    assert not tried, f"traffic left the machine: {tried}"
