"""Run by Python at start where this folder is on PYTHONPATH: kills its process at a given file system event.

STRESS_WATCH names folders, separated like a PATH. With STRESS_KILL_AT=n the n-th event below them (a file opened,
renamed, removed, a folder made, a database opened) is the last thing that the process does not do. With
STRESS_COUNT=file the number of events is written there at the end.
"""

import atexit
import os
import signal
import sys
from pathlib import Path

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "sqlite3.connect", "shutil.rmtree"}
_watched = tuple(folder for folder in os.environ.get("STRESS_WATCH", "").split(os.pathsep) if folder)
_kill_at = int(os.environ.get("STRESS_KILL_AT", "0"))
_count = 0


def _watch(event: str, arguments: tuple) -> None:
    global _count
    if event not in _EVENTS or not arguments or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    if not os.path.abspath(os.fsdecode(arguments[0])).startswith(_watched):
        return
    _count += 1
    if _count == _kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


if _watched:
    sys.addaudithook(_watch)
    if "STRESS_COUNT" in os.environ:
        atexit.register(lambda: Path(os.environ["STRESS_COUNT"]).write_text(str(_count)))
