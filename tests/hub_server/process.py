"""Subprocesses that know only the test Hub: their environment, and running or starting them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from .guard import guard_environment
from .server import HubServer

ROOT = Path(__file__).parents[2]
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")


def environment(
    server: HubServer, home: Path, *, token: str | None = None, xet: bool = False, **more: str
) -> dict[str, str]:
    """A whole environment, nothing inherited but the path: the test Hub, a home of its own, and the watch over traffic.

    `xet=False` sends large files by LFS. Clients read all of this when they are imported.
    """
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    env |= {
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "HF_ENDPOINT": server.endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if token is not None:
        env["HF_TOKEN"] = token
    if not xet:
        env["HF_HUB_DISABLE_XET"] = "1"
    env |= guard_environment(home / "traffic.log")
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(ROOT)])
    return env | more


def command(code: str | Sequence[str]) -> list[str]:
    """Python code as text, or the arguments of Python (`["-m", "inspo_hub.run", "recipe.yaml"]`)."""
    return [sys.executable, *(["-c", textwrap.dedent(code)] if isinstance(code, str) else code)]


def run_with_hub(
    server: HubServer,
    code: str | Sequence[str],
    *,
    home: Path,
    token: str | None = None,
    xet: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; `check` fails with all that was printed. Traffic that left the machine always fails."""
    done = subprocess.run(
        command(code),
        env=environment(server, home, token=token, xet=xet) | dict(env or {}),
        cwd=cwd or home,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"exit {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    assert not check or done.returncode == 0, said
    assert not traffic_of(home), f"traffic left the machine: {traffic_of(home)}\n{said}"
    return done


def start_with_hub(
    server: HubServer,
    code: str | Sequence[str],
    *,
    home: Path,
    token: str | None = None,
    xet: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Start and come back, for tests that kill it; its output is read from the pipes."""
    return subprocess.Popen(
        command(code),
        env=environment(server, home, token=token, xet=xet) | dict(env or {}),
        cwd=cwd or home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def traffic_of(home: Path) -> list[str]:
    """What processes with this home tried to reach outside of this machine."""
    log = home / "traffic.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []
