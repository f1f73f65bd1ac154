"""Run by Python at start where this folder is on PYTHONPATH: watches for traffic that leaves the machine."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("_loopback_guard", Path(__file__).parent.parent / "guard.py")
assert _spec is not None
assert _spec.loader is not None
_guard = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_guard)
_guard.watch()
