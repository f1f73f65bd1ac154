"""A recipe on its way from another format: what was read, what was carried over and where to, what was lost and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Draft:
    """Keys of the source are taken one by one; what nobody takes is told at the end."""

    source: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=lambda: {"version": 1})
    carried: dict[str, str] = field(default_factory=dict)
    """Key of the source -> our key."""
    lost: dict[str, str] = field(default_factory=dict)
    """Key of the source -> why it has no counterpart here."""
    notes: list[str] = field(default_factory=list)
    """What was assumed, and what to look at."""
    _taken: set[str] = field(default_factory=set)

    def take(self, key: str) -> Any:
        """The value; None where it is not there or null. It counts as read from now on."""
        self._taken.add(key)
        return self.source.get(key)

    def put(self, ours: str, value: Any, *keys: str) -> None:
        """Writes our dotted key, and that it came from these of the source."""
        *sections, leaf = ours.split(".")
        place = self.recipe
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
        self.carried.update({key: ours for key in keys if self.source.get(key) is not None})

    def lose(self, key: str, why: str) -> None:
        """Says why a key goes nowhere; nothing where the source does not have it."""
        self._taken.add(key)
        if self.source.get(key) is not None:
            self.lost[key] = why

    def rename(self, key: str, ours: str, convert: Callable[[Any], Any] = lambda value: value) -> None:
        """One key for one key; a value that cannot be converted is lost with the reason that `convert` raises."""
        value = self.take(key)
        if value is None:
            return
        try:
            self.put(ours, convert(value), key)
        except (ValueError, TypeError) as error:
            self.lose(key, str(error))

    def rest(self) -> list[str]:
        """Keys with a value that nobody has taken."""
        return [key for key, value in self.source.items() if value is not None and key not in self._taken]


def truth(value: Any) -> bool:
    """A switch, as YAML 1.1 writes it too."""
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "on")


def whole(value: Any) -> int:
    """A positive whole number, or a ValueError that says what it is."""
    if isinstance(value, bool) or int(float(value)) != float(value) or int(float(value)) < 1:
        raise ValueError(f"{value!r} is no positive whole number")
    return int(float(value))


def number(value: Any) -> float:
    """A number, which PyYAML's users may have written so that it is a text."""
    return float(value)
