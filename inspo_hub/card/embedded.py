"""The recipe and the lock inside a card, written so that `inspo-hub reproduce` can read them again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.card.markdown import fenced, folded
from inspo_hub.card.private import hide_home, hide_path, hide_paths_in
from inspo_hub.errors import ResolutionError
from inspo_hub.recipe.paths import map_paths
from inspo_hub.recipe.reading import Node, read_tree
from inspo_hub.recipe.writing import write_yaml

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

_MARKS = {"recipe": "<!-- inspo_hub: recipe -->", "lock": "<!-- inspo_hub: lock -->"}
_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")


def published_yaml(recipe: Recipe) -> str:
    """The resolved recipe as others may read it: absolute paths by their last part (`./base`), no root folder.

    Its hash is the recipe's own unless a path was written absolute.
    """
    plain = read_tree(recipe.to_yaml(), "the recipe").plain()
    plain["root"] = None
    return write_yaml(_without_home(map_paths(Node.of(plain), _published_path).plain()))


def local_files(recipe: Recipe) -> list[str]:
    """The local files and folders that the recipe names, as `published_yaml` writes them, each once."""
    loaded, written = (_paths(tree) for tree in (recipe.model_dump(mode="json"), _tree(recipe)))
    return sorted({path for path, absolute in zip(written, loaded, strict=True) if Path(absolute).is_absolute()})


def _tree(recipe: Recipe) -> Any:
    return read_tree(published_yaml(recipe), "the recipe").plain()


def _paths(plain: Any) -> list[str]:
    """Every text of a recipe that is a path or a Hub id, in the order of the keys."""
    found: list[str] = []

    def note(path: str, key: str, node: Node) -> str:
        found.append(path)
        return path

    map_paths(Node.of(plain), note)
    return found


def _published_path(path: str, key: str, node: Node) -> str:
    absolute = path.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", path)
    return hide_path(path) if absolute else path


def _without_home(value: Any) -> Any:
    """Texts of the recipe are people's own words: nothing is taken out but the folder that bears a user's name."""
    if isinstance(value, dict):
        return {key: _without_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_home(inner) for inner in value]
    return hide_home(value) if isinstance(value, str) else value


def published_lock(lock: Mapping[str, Any]) -> dict[str, Any]:
    """The lock with local paths by their last part."""
    hidden: dict[str, Any] = hide_paths_in(dict(lock))
    return hidden


def embed_recipe(yaml_text: str) -> str:
    """The block of a card that holds the recipe."""
    return folded("The recipe, every key written out", f"{_MARKS['recipe']}\n{fenced(yaml_text, 'yaml')}")


def embed_lock(lock: Mapping[str, Any]) -> str:
    """The block of a card that holds the lock."""
    text = json.dumps(published_lock(lock), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return folded("The lock: commits, hashes and versions", f"{_MARKS['lock']}\n{fenced(text, 'json')}")


def recipe_and_lock_from_card(text: str, *, where: str = "README.md") -> tuple[str, dict[str, Any]]:
    """(recipe as YAML text, lock) of a card that `model_card` or `twin_card` wrote; the lock is empty where it was.

    Raises:
        ResolutionError: the card holds none, or no longer reads as one.
    """
    blocks = dict(_marked_blocks(text))
    for name in _MARKS:
        if name not in blocks:
            raise ResolutionError(
                f"the card holds no {name}",
                where=where,
                expected="the card of a model that inspo_hub trained",
                fix="name a repository whose README.md has the section “Recipe and lock”",
            )
    try:
        lock = json.loads(blocks["lock"])
    except json.JSONDecodeError as error:
        raise ResolutionError(
            f"the lock in the card is not JSON: {error}",
            where=where,
            expected="the block as it was written",
            fix="take the card of an earlier commit",
        ) from error
    return blocks["recipe"], lock


def _marked_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Each marked code block: the first mark of a name that stands outside of any code block, and what it marks."""
    seen: set[str] = set()
    marked, fence = "", ""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if fence:
            if line.rstrip() == fence:
                if marked:
                    yield marked, "".join(inner + "\n" for inner in lines)
                marked, fence, lines = "", "", []
            else:
                lines.append(line)
        elif opened := _FENCE.match(line):
            fence = opened[1]
        elif line.strip():
            name = next((name for name, mark in _MARKS.items() if mark == line.strip()), "")
            marked = name if name not in seen else ""
            seen.add(name)
