"""Laying one partial recipe over another: `extends`, `variants` and overrides all merge by the same rule."""

from __future__ import annotations

from inspo_hub.recipe.reading import Node

UNIONS = ("objective", "conditioning")
"""Sections that are one of several kinds by `name`; another kind replaces the section and its settings."""


def merge(base: Node, over: Node, path: tuple[str, ...] = ()) -> Node:
    """`over` on top of `base`: mappings key by key, lists and scalars replaced, null included; origins are kept."""
    if path and path[-1] in UNIONS and _at_top(path):
        base, over = as_mapping(base), as_mapping(over)
        if kind_of(over) not in (None, kind_of(base)):
            return over
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child, (*path, key)) if key in merged else child
    return Node(merged, base.origin)


def _at_top(path: tuple[str, ...]) -> bool:
    """Whether a path's last key is a recipe's own, or that of one of its variants."""
    return len(path) == 1 or (len(path) == 3 and path[0] == "variants")


def as_mapping(node: Node) -> Node:
    """The long form of the shorthand `objective: dpo`."""
    return Node({"name": node}, node.origin) if isinstance(node.value, str) else node


def kind_of(node: Node) -> object:
    """Which objective or conditioning a section names; None where it names none."""
    if isinstance(node.value, dict):
        return node.value["name"].value if "name" in node.value else None
    return node.value
