"""Local paths of a recipe: relative to the file that holds them, absolute once loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inspo_hub.recipe.problems import Problem
from inspo_hub.recipe.reading import Node, join

# Key patterns by what their text may be; `*` is any list index or variant name.
_REPOSITORY = (
    "model.id",
    "model.tokenizer",
    "adapter.base_adapter",
    "reference.id",
    "data.train.*.id",
    "data.heldout.*.id",
    "evaluate.prompts.id",
    "evaluate.judge.model.id",
    "evaluate.judge.reward_model.id",
    "iterate.prompts.id",
    "iterate.judge.model.id",
    "iterate.judge.reward_model.id",
)
_FILE = ("model.chat_template", "evaluate.judge.template", "iterate.judge.template")
_FUNCTION = ("evaluate.judge.python", "iterate.judge.python")
_KINDS = {
    re.compile(r"(variants\.[^.]+\.)?" + re.escape(pattern).replace(r"\*", r"\d+")): kind
    for kind, patterns in {"repository": _REPOSITORY, "file": _FILE, "function": _FUNCTION}.items()
    for pattern in patterns
} | {re.compile(r"sweep\.(adapter\.base_adapter|reference\.id)\.\d+"): "repository"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATA_FILE = re.compile(r".*\.(jsonl?|csv|parquet|arrow)(\.(gz|zst))?", re.IGNORECASE)


def map_paths(node: Node, change: Callable[[str, str, Node], str], path: str = "") -> Node:
    """The same tree, where every text that may be a path went through `change(text, dotted key, its node)`."""
    if isinstance(node.value, dict):
        return Node({key: map_paths(child, change, join(path, key)) for key, child in node.value.items()}, node.origin)
    if isinstance(node.value, list):
        return Node([map_paths(child, change, join(path, i)) for i, child in enumerate(node.value)], node.origin)
    kind = _kind(path)
    if kind is None or not isinstance(node.value, str):
        return node
    if kind != "function":
        return Node(change(node.value, path, node), node.origin)
    file, colon, function = node.value.rpartition(":")
    return Node(change(file, path, node) + colon + function, node.origin) if file.endswith(".py") else node


def _kind(path: str) -> str | None:
    """What a key's text may be: a `repository` (Hub id or path), `file`, `function` of one; None: no path."""
    return next((kind for pattern, kind in _KINDS.items() if pattern.fullmatch(path)), None)


@dataclass
class PathResolver:
    """Makes the local paths of one file absolute; collects what is neither a path nor a Hub id."""

    folder: Path | None
    """Where relative paths start; None: the text came from no file."""
    problems: list[Problem] = field(default_factory=list)
    relative: set[str] = field(default_factory=set)
    """The absolute paths that were written relative, and so may travel with the recipe."""

    def resolve(self, node: Node, path: str = "") -> Node:
        """The node at the dotted `path`, with its local paths absolute."""
        return map_paths(node, self._absolute, path)

    def _absolute(self, text: str, key: str, node: Node) -> str:
        """A relative path must exist, for it travels with the recipe; an absolute one may be another machine's."""
        path = Path(text).expanduser()
        if path.is_absolute():
            return os.path.normpath(path)
        kind = _kind(key)
        here = None if self.folder is None else Path(os.path.normpath(self.folder / path))
        if here is not None and text and here.exists():
            self.relative.add(str(here))
            return str(here)
        may_be_hub_id = kind == "repository"
        if may_be_hub_id and _HUB_ID.fullmatch(text) and not _DATA_FILE.fullmatch(text):
            return text
        expected = "an existing path, or a Hub id owner/name" if may_be_hub_id else "an existing path"
        looked = "the text came from no file, so relative paths lead nowhere" if here is None else f"looked at {here}"
        fix = "" if here is None else "check the path; to start relative paths elsewhere: --set root=DIR"
        self.problems.append(Problem(str(node.origin), key, f"{text!r} does not exist ({looked})", expected, fix))
        return text


def written_relative(paths: set[str], root: Path) -> dict[str, str]:
    """Absolute path -> `./…` or `../…` from `root`, which no Hub id looks like; another drive has no such form."""
    written = {}
    for path in paths:
        try:
            relative = Path(os.path.relpath(path, root)).as_posix()
        except ValueError:
            continue
        written[path] = relative if relative.startswith("../") else f"./{relative}"
    return written


def is_path(name: str | None) -> bool:
    """Whether the model or data id of a loaded recipe is a local path; those are absolute, and Hub ids never are."""
    return name is not None and Path(name).is_absolute()
