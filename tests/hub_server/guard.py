"""A watch over traffic that leaves this machine, by an audit hook: in this process, and in those that it starts.

`watch()` installs the hook once. From then on connecting to, sending to or looking up anything but loopback raises, and
is noted in `violations`, since clients swallow exceptions. Subprocesses are watched through `sitecustomize.py` in the
folder `guarded_site` beside this file, put on their PYTHONPATH by `guard_environment`; they note in a file.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

LOG_VARIABLE = "LOOPBACK_GUARD_LOG"
SITE = Path(__file__).parent / "guarded_site"
violations: list[str] = []
allowed = False  # true while a test runs that is meant for the live Hub
_NAMES = {"", "localhost", "localhost.localdomain", socket.gethostname()}  # and this machine's own addresses
_installed = False


class TrafficLeavesTheMachine(RuntimeError):
    """Raised into whoever tries; tests reach loopback and nothing else."""


def is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host is None or host in _NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if allowed:
        return
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if not isinstance(address, tuple) or is_local(address[0]):
            return  # a tuple is an internet address; a path or a number belongs to this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[0]
        if is_local(address):
            return
    else:
        return
    what = f"{event} {address!r}"
    violations.append(what)
    if LOG_VARIABLE in os.environ:
        with open(os.environ[LOG_VARIABLE], "a", encoding="utf-8") as file:
            file.write(what + "\n")
    raise TrafficLeavesTheMachine(what)


def watch() -> None:
    """Install the hook; a hook cannot be taken away again, so it stays until the process ends."""
    global _installed
    if not _installed:
        _installed = True
        with contextlib.suppress(OSError):  # a name that nobody resolves has no address to allow
            _NAMES.update(str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None))
        sys.addaudithook(_audit)


def guard_environment(log: Path) -> dict[str, str]:
    """Variables that watch a Python subprocess and let it note in `log` what it tried."""
    path = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), LOG_VARIABLE: str(log)}
