"""What the checks find between keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conflict:
    """Values that do not go together, told at the key that should change."""

    path: tuple[str | int, ...]
    what: str
    expected: str = ""
    fix: str = ""
