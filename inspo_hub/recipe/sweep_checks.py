"""What can be wrong with a sweep as a whole: what it changes, how often, how large it gets, what it would undo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inspo_hub.recipe.conflicts import Conflict
from inspo_hub.recipe.reading import Node
from inspo_hub.recipe.sweeping import MAX_VARIANTS, SWEPT, combinations

if TYPE_CHECKING:
    from inspo_hub.recipe.schema import Recipe

_LONGEST_NAME = 96
"""Characters of a recipe's name, and of a repository's on the Hub."""


def sweep_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Everything that a sweep does not go together with; nothing for a recipe without one."""
    if not recipe.sweep:
        return
    found = [*_values(recipe), *_undone(recipe)]
    # Names are made of values that are right.
    yield from found or _names(recipe)


def _values(recipe: Recipe) -> Iterator[Conflict]:
    sweep = recipe.sweep
    for key, values in sweep.items():
        if not any(key == root or key.startswith(f"{root}.") for root in SWEPT):
            what, fix = f"a sweep cannot change {key}", "write it into the recipe, or into variants"
            yield Conflict(("sweep", key), what, f"a key of {', '.join(SWEPT)}", fix)
        shown = [repr(value) for value in values]
        twice = next((index for index, text in enumerate(shown) if text in shown[:index]), None)
        if twice is not None:
            yield Conflict(("sweep", key, twice), f"{shown[twice]} is listed twice", "every value once")
    count = combinations(recipe.variants, {key: Node.of(values) for key, values in sweep.items()})
    if count > MAX_VARIANTS:
        what, fix = f"{count:,} trainings", "take values out, or split the sweep into recipes that extend this one"
        yield Conflict(("sweep",), what, f"at most {MAX_VARIANTS}", fix)


def _undone(recipe: Recipe) -> Iterator[Conflict]:
    for name, keys in recipe.variants.items():
        for key in recipe.sweep:
            if _has(keys, key):
                what = f"has its own {key}, which the sweep would undo"
                yield Conflict(("variants", name), what, fix=f"delete it here, or {key} from the sweep")


def _has(keys: Mapping[str, Any], path: str) -> bool:
    value: Any = keys
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _names(recipe: Recipe) -> Iterator[Conflict]:
    names = [point.name for point in recipe.points()]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        yield Conflict(("sweep",), f"two combinations would be called {twice!r}", "values that differ in letters")
    longest = max(names, key=len)
    if len(f"{recipe.name}-{longest}") > _LONGEST_NAME:
        what = f"the name {recipe.name}-{longest} would have {len(recipe.name) + 1 + len(longest)} characters"
        yield Conflict(("sweep",), what, f"at most {_LONGEST_NAME}", "sweep fewer keys, or shorten the recipe's name")
