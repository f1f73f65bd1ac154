"""A small Hub for tests: real commits over HTTP on loopback, strict where the Hub is strict, broken when told to be.

`HubServer` is the server and its Python side, `faults` has what can go wrong, `fixtures` the pytest fixtures, `guard`
the watch over traffic that leaves this machine. `tests/test_hub_server.py` shows all of it in use.
"""

from __future__ import annotations

from .faults import Answer, Corrupt, Cut, Do, Drop, RateLimited, Slow
from .server import HubServer

__all__ = ["Answer", "Corrupt", "Cut", "Do", "Drop", "HubServer", "RateLimited", "Slow"]
