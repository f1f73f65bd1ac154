"""YAML text -> a tree that knows where each key stands. Scalars follow the core schema of YAML 1.2 (§10.3.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from inspo_hub.recipe.problems import Problem, RecipeProblems

MAX_NODES = 100_000
"""A few lines of aliases can expand without end; no recipe comes near this."""

_STANDARD = "tag:yaml.org,2002:"
_CORE_SCHEMA = {
    "null": re.compile(r"(null|Null|NULL|~|)\Z"),
    "bool": re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(
        r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
    ),
}

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file's line, or an override of the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the recipe and where its key stands."""

    value: Scalar | list[Node] | dict[str, Node]
    origin: Origin = field(default=Origin(""), compare=False)

    def plain(self) -> Any:
        """The value as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    @staticmethod
    def of(value: Any, origin: Origin = Origin("")) -> Node:
        """The tree of plain dicts, lists and scalars, all of one origin."""
        if isinstance(value, Mapping):
            return Node({str(key): Node.of(child, origin) for key, child in value.items()}, origin)
        if isinstance(value, list | tuple):
            return Node([Node.of(child, origin) for child in value], origin)
        return Node(value, origin)


def scalar(text: str) -> Scalar:
    """The value of an unquoted scalar: `5e-7` and `1e5` are numbers, `08` is eight, `no` and dates are strings."""
    for kind, pattern in _CORE_SCHEMA.items():
        if pattern.match(text):
            return _CONVERT[kind](text)
    return text


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _number(text: str) -> float:
    return float(text.replace(".", "") if text[-1] in "fFnN" else text)


_CONVERT: dict[str, Callable[[str], Scalar]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _number,
    "str": str,
}


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the implicit types of YAML 1.2's core schema in place of those of 1.1."""


_CoreLoader.yaml_implicit_resolvers = {None: [(_STANDARD + kind, pattern) for kind, pattern in _CORE_SCHEMA.items()]}


def read_tree(text: str, source: str) -> Node:
    """The tree of one YAML document; every duplicate key, odd key and odd tag is listed in one `RecipeProblems`."""
    node = _compose(text, source)
    if node is None:
        return Node({}, Origin(source, 1))
    reader = _Reader(source)
    tree = reader.node(node, Origin(source, node.start_mark.line + 1), "")
    if reader.problems:
        raise RecipeProblems(reader.problems, recipe=source)
    return tree


def read_value(text: str, source: str) -> Node:
    """The tree of an override's value: a scalar or a flow value such as `[1, 2]` and `{name: ipo}`."""
    origin = Origin(source)
    node = _compose(text, source)
    if node is None:
        return Node(None, origin)
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        what, fix = (
            f"{text!r} reads as a YAML block",
            f"quote a text, {text!r} -> '\"{text}\"', or write {{key: value}}",
        )
        raise RecipeProblems([Problem(source, "", what, "one scalar, [list] or {mapping}", fix)], recipe=source)
    reader = _Reader(source, with_lines=False)
    tree = reader.node(node, origin, "")
    if reader.problems:
        raise RecipeProblems(reader.problems, recipe=source)
    return tree


def _compose(text: str, source: str) -> Any:
    try:
        return yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None or source.startswith("--set") else mark.line + 1
        what = " ".join(part for part in (error.context, error.problem) if part)
        origin = str(Origin(source, line))
        raise RecipeProblems([Problem(origin, "", f"not valid YAML: {what}")], recipe=source) from error
    except RecursionError as error:
        raise RecipeProblems([Problem(source, "", "nested too deeply for a recipe")], recipe=source) from error
    except yaml.reader.ReaderError as error:
        what = f"not valid YAML: the character {error.character!r} is not allowed ({error.reason})"
        raise RecipeProblems([Problem(source, "", what)], recipe=source) from error


class _Reader:
    """Turns composed YAML nodes into `Node`s and collects what is wrong on the way."""

    def __init__(self, source: str, *, with_lines: bool = True) -> None:
        self.source, self.with_lines = source, with_lines
        self.problems: list[Problem] = []
        self.count = 0
        self.open: set[int] = set()

    def origin(self, node: yaml.Node) -> Origin:
        return Origin(self.source, node.start_mark.line + 1 if self.with_lines else None)

    def wrong(self, origin: Origin, path: str, what: str, expected: str = "", fix: str = "") -> Node:
        self.problems.append(Problem(str(origin), path, what, expected, fix))
        return Node(None, origin)

    def node(self, node: yaml.Node, origin: Origin, path: str) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            too_many = Problem(str(origin), path, f"more than {MAX_NODES:,} values, aliases expanded")
            raise RecipeProblems([*self.problems, too_many], recipe=self.source)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, origin, path)
        if id(node) in self.open:
            return self.wrong(origin, path, "an alias that contains itself")
        expected_tag = _STANDARD + ("map" if isinstance(node, yaml.MappingNode) else "seq")
        if node.tag != expected_tag:
            return self.wrong(origin, path, f"the tag {node.tag!r}", "plain YAML without tags")
        self.open.add(id(node))
        children: dict[str, Node] | list[Node]
        if isinstance(node, yaml.MappingNode):
            children = dict(self.entries(node, path))
        else:
            children = [self.node(child, self.origin(child), join(path, i)) for i, child in enumerate(node.value)]
        self.open.discard(id(node))
        return Node(children, origin)

    def entries(self, node: yaml.MappingNode, path: str) -> Iterator[tuple[str, Node]]:
        first: dict[str, Origin] = {}
        for key_node, child in node.value:
            origin = self.origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.wrong(origin, path, "a key that is a list or a mapping", "a word as key")
                continue
            key = str(key_node.value)
            if key in first:
                twice = f"written twice, first at {first[key]}"
                self.wrong(origin, join(path, key), twice, "every key once", "delete one of the two")
                continue
            first[key] = origin
            yield key, self.node(child, origin, join(path, key))

    def scalar(self, node: yaml.ScalarNode, origin: Origin, path: str) -> Node:
        convert = _CONVERT.get(node.tag.removeprefix(_STANDARD))
        if convert is None:
            return self.wrong(origin, path, f"the tag {node.tag!r}", "plain YAML without tags")
        try:
            return Node(convert(node.value), origin)
        except ValueError:  # only an explicit tag gets here, or an integer of thousands of digits
            return self.wrong(
                origin, path, f"{shorten(node.value)} does not read as {node.tag.removeprefix(_STANDARD)}"
            )


def join(path: str, key: str | int) -> str:
    """The dotted path of a key."""
    return f"{path}.{key}" if path else str(key)


def shorten(value: Any, limit: int = 60) -> str:
    """A value as an error message shows it: one line, not longer than it needs to be recognised."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
