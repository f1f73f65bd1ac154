"""A tree of values -> a `Recipe`, or every problem of it with line, path, what was expected and the nearest key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.recipe.conflicts import Conflict
from inspo_hub.recipe.keys import describe, nearest_key, pattern_of
from inspo_hub.recipe.problems import Problem
from inspo_hub.recipe.reading import Node, join, shorten
from inspo_hub.recipe.schema import Recipe

_TYPES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "tuple_type": "a list",
    "too_short": "at least one value",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}


_EXPECTED = {
    "adapter.target_modules": "auto, or a list of name ends such as [q_proj, v_proj]",
    "version": "1, the one version of the format so far",
    "name": "letters, digits, `.`, `-` and `_`, 96 at most, the first a letter or digit",
    "evaluate.judge.python": "`file.py:function`, or `package.module:function`",
    "iterate.judge.python": "`file.py:function`, or `package.module:function`",
    "iterate.dataset": "owner/name",
    "data.heldout": "a list of data sets, {fraction: f}, or null",
    "objective": f"the name of an objective, or a mapping with `name`: {', '.join(OBJECTIVES)}",
    "conditioning": f"the name of a conditioning, or a mapping with `name`: {', '.join(CONDITIONINGS)}",
}
"""What a key that takes several shapes expects; pydantic would speak of one of them."""


def validate(tree: Node) -> tuple[Recipe | None, list[Problem]]:
    """The recipe of a merged tree, or None and all that is wrong with it in the order of its lines."""
    try:
        return Recipe.model_validate_json(json.dumps(tree.plain()), strict=True), []
    except ValidationError as error:
        problems = [problem for details in error.errors(include_url=False) for problem in problems_at(tree, details)]
        return None, problems


def locate(tree: Node, conflict: Conflict) -> Problem:
    """A conflict with the line of the key that it is told at, or of the section that lacks it."""
    path, node, _ = _find(tree, conflict.path)
    return Problem(str(node.origin), path, conflict.what, conflict.expected, conflict.fix)


def problems_at(tree: Node, details: ErrorDetails) -> Iterator[Problem]:
    """What one error of pydantic means to the user."""
    if details["type"] == "conflict":
        for conflict in details["ctx"]["conflicts"]:
            yield locate(tree, conflict)
        return
    path, node, section = _find(tree, details["loc"])
    origin, kind = str(node.origin), _kind(section)
    if details["type"] == "extra_forbidden":
        yield _unknown_key(origin, path, nearest_key(path, kind))
    elif details["loc"][-1:] == ("[key]",):
        near = difflib.get_close_matches(str(details["input"]), str(details["ctx"]["expected"]).split("'"), n=1)
        yield _unknown_key(origin, path, near[0] if near else "", expected=f"one of {details['ctx']['expected']}")
    elif details["type"] == "missing":
        path = join(path, details["loc"][-1])
        yield Problem(origin, path, "is missing", describe(path, _kind(node)))
    else:
        what, expected, fix = _wrong_value(details)
        yield Problem(origin, path, what, _EXPECTED.get(pattern_of(path)) or expected or describe(path, kind), fix)


def _unknown_key(origin: str, path: str, near: str, expected: str = "") -> Problem:
    fix = f"did you mean {near}?" if near else "delete it; `inspo-hub schema` lists every key"
    return Problem(origin, path, f"unknown key {path.rpartition('.')[2]!r}", expected, fix)


def _find(tree: Node, loc: Sequence[str | int]) -> tuple[str, Node, Node]:
    """Dotted path, node and enclosing section of a location; pydantic's marks of unions are no keys and skipped."""
    path, node, section = "", tree, tree
    for key in loc:
        child: Node | None = None
        if isinstance(node.value, dict):
            child = node.value.get(str(key))
        elif isinstance(node.value, list) and isinstance(key, int) and key < len(node.value):
            child = node.value[key]
        if child is not None:
            path, section, node = join(path, key), node, child
    return path, node, section


def _kind(section: Node) -> str | None:
    name = section.value.get("name") if isinstance(section.value, dict) else None
    return name.value if name is not None and isinstance(name.value, str) else None


def _wrong_value(details: ErrorDetails) -> tuple[str, str, str]:
    """(what, expected, fix) of a value that its key does not take."""
    context: Mapping[str, Any] = details.get("ctx", {})
    what = _shown(details["input"])
    if details["type"] in ("literal_error", "union_tag_invalid"):
        given = context.get("tag", details["input"])
        expected = str(context.get("expected", context.get("expected_tags")))
        near = difflib.get_close_matches(str(given), expected.replace("'", "").replace(" or ", ", ").split(", "), n=1)
        return _shown(given), f"one of {expected}", f"did you mean {near[0]!r}?" if near else ""
    if details["type"] in _TYPES:
        fix = ""
        value = details["input"]
        if details["type"] == "int_type" and isinstance(value, float) and value.is_integer():
            fix = f"write {int(value)}"
        elif details["type"] == "string_type" and isinstance(value, int | float):
            fix = f"write it in quotes, '{json.dumps(value)}'"
        return what, _TYPES[details["type"]], fix
    message = details["msg"].removeprefix("Input should be ").removeprefix("Value should have ")
    return what, message, ""


def _shown(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return shorten(value)
