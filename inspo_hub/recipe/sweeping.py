"""`sweep:` -> variants: the product of the listed values, each point a partial recipe with a name that says it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inspo_hub.recipe.merging import UNIONS, merge
from inspo_hub.recipe.reading import Node, join

MAX_VARIANTS = 64
"""Trainings of one recipe; a larger grid is a mistake more often than a wish, and its table says nothing to anybody."""
SWEPT = ("objective", "conditioning", "alternative", "reference", "adapter", "train", "data.max_length", "seed")
"""What a sweep may change: a key of these, or a key below one."""


@dataclass(frozen=True)
class Point:
    """One variant of the product: which variant it is of, and which value of each swept key it takes."""

    name: str
    variant: str | None
    """The entry of `variants:` that it is made from; None where there are none."""
    places: Mapping[str, int]
    """Swept key -> position in its list."""
    keys: Node
    """What differs from the recipe around it."""


def flat_sweep(tree: Node) -> Node:
    """The tree with `sweep: {objective: {beta: [..]}}` written as `sweep: {objective.beta: [..]}`; null is none."""
    assert isinstance(tree.value, dict)
    sweep = tree.value.get("sweep")
    if sweep is None:
        return tree
    flat = sweep
    if sweep.value is None or isinstance(sweep.value, dict):
        flat = Node(dict(_leaves(sweep, "")) if sweep.value else {}, sweep.origin)
    return Node(tree.value | {"sweep": flat}, tree.origin)


def _leaves(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    if not isinstance(node.value, dict) or not node.value:
        yield path, node
        return
    for key, child in node.value.items():
        yield from _leaves(child, join(path, key))


def combinations(variants: Mapping[str, Any], sweep: Mapping[str, Node]) -> int:
    """How many variants `expand` makes."""
    lengths = [len(values.value) for values in sweep.values() if isinstance(values.value, list)]
    return max(1, len(variants)) * math.prod(lengths)


def expand(variants: Mapping[str, Node], sweep: Mapping[str, Node]) -> list[Point]:
    """Every variant at every point, the last key of the sweep changing fastest; the variants alone without a sweep."""
    known: list[tuple[str | None, Node]] = [*variants.items()] or [(None, Node({}))]
    lists = {key: values.value for key, values in sweep.items() if isinstance(values.value, list)}
    points = []
    for variant, keys in known:
        for places in itertools.product(*(range(len(values)) for values in lists.values())):
            chosen = {key: values[place] for (key, values), place in zip(lists.items(), places, strict=True)}
            words = [*([variant] if variant else []), *point_words({key: node.plain() for key, node in chosen.items()})]
            at = dict(zip(lists, places, strict=True))
            points.append(Point("_".join(words), variant, at, _with_values(keys, chosen)))
    return points


def _with_values(keys: Node, chosen: Mapping[str, Node]) -> Node:
    """A variant's keys with the point's laid over them; which objective it is comes first, its settings after."""
    for key in sorted(chosen, key=lambda key: key not in UNIONS):
        nested = chosen[key]
        for part in reversed(key.split(".")):
            nested = Node({part: nested}, nested.origin)
        keys = merge(keys, nested)
    return keys


def point_words(values: Mapping[str, Any]) -> list[str]:
    """`conditioning: none, objective.beta: 0.1, seed: 0` -> `none`, `beta0.1`, `seed0`."""
    leaves = [key.rpartition(".")[2] for key in values]
    words = []
    for key, leaf in zip(values, leaves, strict=True):
        label = "" if key in UNIONS else (leaf if leaves.count(leaf) == 1 else key)
        words.append(_word(label) + _word(_shown(values[key])))
    return words


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(_shown(part) if key == "name" else f"{key}{_shown(part)}" for key, part in value.items())
    if isinstance(value, list):
        return "-".join(map(_shown, value))
    if isinstance(value, float):
        return re.sub(r"e([-+])0+", r"e\1", repr(value)).replace("e+", "e")
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(text: str) -> str:
    """Text as a part of a folder's and a repository's name: neither allows `/`, `--` or `..`."""
    kept = re.sub(r"[^A-Za-z0-9.-]+", "-", text)
    return re.sub(r"\.{2,}", ".", re.sub(r"-{2,}", "-", kept))
