"""`--set key=value`: typed changes laid over a recipe from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from inspo_hub.recipe.merging import UNIONS, as_mapping, kind_of, merge
from inspo_hub.recipe.problems import Problem, RecipeProblems
from inspo_hub.recipe.reading import Node, read_value


@dataclass(frozen=True, slots=True)
class Override:
    """One `key=value` of the command line: dotted key, value as a YAML scalar, [list] or {mapping}."""

    keys: tuple[str, ...]
    value: Node

    @staticmethod
    def parse(text: str) -> Override:
        source = f"--set {text}"
        key, equals, value = text.partition("=")
        keys = tuple(part.strip() for part in key.split("."))
        if not equals or not all(keys):
            problem = Problem(source, "", "not an override", "key=value with a dotted key", "--set train.lr=1e-6")
            raise RecipeProblems([problem], recipe=source)
        return Override(keys, read_value(value, source))

    @property
    def path(self) -> str:
        return ".".join(self.keys)

    @property
    def selects_kind(self) -> bool:
        """Whether it says which objective or conditioning: applied first, for other settings belong to that kind."""
        keys = self.keys[2:] if self.keys[0] == "variants" else self.keys
        return keys[:1] in {(union,) for union in UNIONS} and keys[1:] in {(), ("name",)}


def apply_overrides(tree: Node, overrides: Iterable[Override]) -> tuple[Node, list[Problem]]:
    """The tree with the overrides laid over it, later ones winning, and what could not be applied."""
    problems: list[Problem] = []
    for override in sorted(overrides, key=lambda override: not override.selects_kind):
        tree = _assign(tree, override.keys, override.value, (), problems)
    return tree, problems


def _assign(base: Node, keys: Sequence[str], value: Node, path: tuple[str, ...], problems: list[Problem]) -> Node:
    if not keys:
        return merge(base, value, path)
    key, rest = keys[0], keys[1:]
    if isinstance(base.value, list):
        if not key.isdigit() or int(key) >= len(base.value):
            last = len(base.value) - 1
            what = f"{key!r} is no position of the list {'.'.join(path)}"
            problems.append(Problem(str(value.origin), ".".join((*path, key)), what, f"0 to {last}"))
            return base
        items = list(base.value)
        items[int(key)] = _assign(items[int(key)], rest, value, (*path, key), problems)
        return Node(items, base.origin)
    selects = path[-1:] in {(union,) for union in UNIONS} and key == "name"
    if isinstance(base.value, dict) and key in base.value and not selects:
        child = _assign(base.value[key], rest, value, (*path, key), problems)
        return Node({**base.value, key: child}, base.origin)
    nested = value
    for outer in reversed(keys):
        nested = Node({outer: nested}, value.origin)
    return merge(base, nested, path)


def hidden_by_variants(tree: Node, overrides: Iterable[Override]) -> Iterator[Problem]:
    """An override that a variant's own value, or a sweep's, would silently undo: the user must say what is meant."""
    assert isinstance(tree.value, dict)
    found = [tree.value.get(key) for key in ("variants", "sweep")]
    variants, sweep = (part.value if part and isinstance(part.value, dict) else {} for part in found)
    for override in overrides:
        if override.keys[0] in ("variants", "sweep"):
            continue
        for key in sweep:
            if f"{override.path}.".startswith(f"{key}.") or f"{key}.".startswith(f"{override.path}."):
                what, fix = f"the sweep has its own {key}, which would win", f"--set 'sweep.{key}=[…]'"
                yield Problem(str(override.value.origin), override.path, what, fix=fix)
        for name, variant in variants.items():
            hidden = [keys for keys in _leaves(override.value, override.keys) if _hides(tree, variant, keys)]
            for keys in hidden:
                path = ".".join(keys)
                what = f"variant {name!r} has its own {path}, which would win"
                fix = f"--set variants.{name}.{path}=… for that variant"
                yield Problem(str(override.value.origin), path, what, fix=fix)


def _leaves(value: Node, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value.value, dict) and value.value:
        for key, child in value.value.items():
            yield from _leaves(child, (*keys, key))
    else:
        yield keys


def _hides(tree: Node, variant: Node, keys: Sequence[str]) -> bool:
    """Whether `variant` laid over `tree` replaces what stands at `keys`."""
    node = variant
    base: Node | None = tree
    for position, key in enumerate(keys):
        if position == 1 and keys[0] in UNIONS and kind_of(node) is not None:
            if base is None or kind_of(node) != kind_of(base):
                return True
            node = as_mapping(node)
        if not isinstance(node.value, dict):
            return True
        if key not in node.value:
            return False
        node = node.value[key]
        base = base.value.get(key) if base is not None and isinstance(base.value, dict) else None
    return True
