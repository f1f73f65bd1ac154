"""Keeps a machine out of a card: a local path is shown by its last part, and never the folder of a user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspo_hub.hub import Pinned

# Not part of a URL or a fraction: a path starts after a space, a quote, a bracket, `=` or `:` that is not a scheme's.
_START = r"(?<![\w/.\\~])(?<!:/)(?<!:)"
_PATH = re.compile(
    rf"{_START}(?:file://)?(?:~|(?=/))(?:/[^\s/\"'`<>|,;()\[\]{{}}]+)+/?"
    rf"|{_START}(?:[A-Za-z]:[\\/]|\\\\)[^\s\"'`<>|,;()\[\]{{}}]+"
)


def hide_paths(text: str) -> str:
    """The text with every absolute path as `./last-part`, which is a path too and never a Hub id."""
    return _PATH.sub(lambda match: _last_part(match[0]), hide_home(text))


def hide_home(text: str) -> str:
    """The text with the user's home folder as `~`; it may hold spaces, which end a path in running text."""
    home = str(Path.home())
    return text if len(home) == 1 else re.sub(r"(?<![\w.])" + re.escape(home) + r"(?![\w.-])", "~", text)


def hide_path(path: str) -> str:
    """A text that is one whole path, spaces and all, as `./last-part`."""
    return _last_part(path)


def hide_paths_in(value: Any) -> Any:
    """The same for every text, keys included, of plain dicts and lists."""
    if isinstance(value, dict):
        return {hide_paths_in(key): hide_paths_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide_paths_in(inner) for inner in value]
    if isinstance(value, str):
        return hide_path(value) if _is_absolute(value) else hide_paths(value)
    return value


def shown_name(pin: Pinned) -> str:
    """A Hub id, or the name of a local file or folder."""
    return pin.path.name if pin.path is not None else pin.id


def _is_absolute(text: str) -> bool:
    return bool(re.fullmatch(r"(?:/[^\n/]+)+/?|[A-Za-z]:[\\/][^\n]*", text))


def _last_part(path: str) -> str:
    return "./" + re.split(r"[\\/]+", path.rstrip("/\\"))[-1]
