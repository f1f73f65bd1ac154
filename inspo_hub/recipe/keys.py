"""Every key of a recipe as its JSON schema describes it: for error messages and for the reference page."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from inspo_hub.recipe.elsewhere import KNOWN_ELSEWHERE
from inspo_hub.recipe.export import whole_schema


@dataclass(frozen=True, slots=True)
class Key:
    """One key: dotted path with `*` for list positions, the kind of its union (an objective's name), and its schema."""

    path: str
    kind: str | None
    schema: dict[str, Any]
    required: bool

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def description(self) -> str:
        return str(self.schema.get("description", ""))


@cache
def all_keys() -> tuple[Key, ...]:
    """Every key in the order of the schema; a key of several objectives stands once for each."""
    schema = whole_schema()
    return tuple(_walk(schema, schema["$defs"], "", None))


def _walk(schema: dict[str, Any], definitions: dict[str, Any], path: str, kind: str | None) -> Iterator[Key]:
    for option in _options(schema, definitions):
        own = option.get("properties", {}).get("name", {}).get("const", kind)
        for name, child in option.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield Key(here, own, child, name in option.get("required", ()))
            yield from _walk(child, definitions, here, own)
        if "items" in option:
            yield from _walk(option["items"], definitions, f"{path}.*", kind)


def _options(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas that a value may follow: references looked up, unions taken apart."""
    if "$ref" in schema:
        yield from _options(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in schema or "oneOf" in schema:
        for option in schema.get("anyOf") or schema["oneOf"]:
            yield from _options(option, definitions)
    else:
        yield schema


def nearest_key(path: str, kind: str | None) -> str:
    """The existing key that an unknown one most probably means, as a dotted path; empty where none is near.

    Neighbours first, then what other trainers call it, then the same word in another section.
    """
    prefix, pattern = _split_variant(pattern_of(path))
    parent, _, leaf = pattern.rpartition(".")
    word = leaf.lower()
    neighbours = [key.leaf for key in all_keys() if key.parent == parent and key.kind in (None, kind)]
    near = difflib.get_close_matches(word, neighbours, n=1, cutoff=0.6)
    if near:
        return f"{path.rpartition('.')[0]}.{near[0]}".lstrip(".")
    if word in KNOWN_ELSEWHERE:
        return prefix + KNOWN_ELSEWHERE[word]
    for cutoff in (1.0, 0.8):
        leaves = difflib.get_close_matches(word, [key.leaf for key in all_keys()], n=1, cutoff=cutoff)
        if leaves:
            key = next(key for key in all_keys() if key.leaf == leaves[0])
            return prefix + key.path + (f" of {key.kind}" if key.kind else "")
    return ""


def describe(path: str, kind: str | None = None) -> str:
    """The description of the key at a dotted path; empty where there is none."""
    pattern = _split_variant(pattern_of(path))[1]
    found = [key for key in all_keys() if key.path == pattern]
    of_kind = [key for key in found if key.kind in (None, kind)] or found
    return of_kind[0].description if of_kind else ""


def pattern_of(path: str) -> str:
    """`data.train.3.id` -> `data.train.*.id`."""
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def _split_variant(pattern: str) -> tuple[str, str]:
    parts = pattern.split(".")
    if parts[0] == "variants" and len(parts) > 2:
        return ".".join(parts[:2]) + ".", ".".join(parts[2:])
    return "", pattern
