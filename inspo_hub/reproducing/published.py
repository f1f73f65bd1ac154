"""What a published model says about the run that made it: recipe and lock, metrics, the hashes of its weights.

A card is somebody else's text. Nothing in it is run, and no path in it leads out of the folder that the user names.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub import hub
from inspo_hub.card import recipe_and_lock_from_card
from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.plan import Lock
from inspo_hub.recipe import Recipe, parse_recipe
from inspo_hub.recipe.paths import map_paths
from inspo_hub.recipe.reading import Node, read_tree

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """The run behind a model."""

    source: hub.Pinned
    recipe_text: str
    lock: Lock
    metrics: tuple[Mapping[str, Any], ...]
    """The lines of metrics.jsonl; empty where it was not published."""
    weights: tuple[hub.RepoFile, ...]


def read_published(model: str) -> PublishedRun:
    """The run behind `user/model`, `user/model@revision` or an output folder of this disk (`./outputs/name`).

    Raises:
        ResolutionError: it cannot be found, or was not published by a run.
    """
    is_local = model.startswith((".", "/", "~"))
    name, _, revision = (model, "", "") if is_local else model.partition("@")
    source = hub.resolve("model", name, revision or None)
    folder = hub.fetch_run(source)
    recipe_text, lock = _recipe_and_lock(folder, str(source))
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return PublishedRun(
        source=source,
        recipe_text=recipe_text,
        lock=Lock.from_json(lock, where=f"lock of {source}"),
        metrics=tuple(json.loads(line) for line in lines),
        weights=tuple(hub.weight_files(source)),
    )


def _recipe_and_lock(folder: Path, where: str) -> tuple[str, str]:
    """Both as texts: the ones embedded in the card, or, where somebody wrote another card, the files beside it."""
    card = folder / "README.md"
    if card.is_file():
        try:
            recipe, lock = recipe_and_lock_from_card(card.read_text(encoding="utf-8"), where=f"card of {where}")
            return recipe, json.dumps(lock)
        except ResolutionError as error:
            log.info("%s; reading recipe.yaml and lock.json instead", error.what)
    return (folder / "recipe.yaml").read_text(encoding="utf-8"), (folder / "lock.json").read_text(encoding="utf-8")


def recipe_of(published: PublishedRun, files: Path | None) -> Recipe:
    """The recipe as it was run, with its local files in `files`.

    Raises:
        DataError: it names local files that are not there, or that lie outside of that folder.
        ResolutionError: it is not the recipe that the lock was written for.
    """
    where = f"recipe of {published.source}"
    named = local_paths(published.recipe_text, where)
    folder = None if files is None else files.expanduser().absolute()
    outside = [path for path in named if not path.startswith("./") or ".." in re.split(r"[\\/]", path)]
    if outside:
        raise DataError(
            f"it names files outside of its folder: {', '.join(outside)}",
            where=where,
            expected="paths that start with `./`",
            fix="save the recipe from the card, correct its paths, and run it with `inspo-hub run`",
        )
    missing = [path for path in named if folder is None or not (folder / path).exists()]
    if missing:
        raise DataError(
            f"it was trained with local files that are not on the Hub: {', '.join(missing)}",
            where=where,
            expected="these files, as they were" + ("" if folder is None else f", in {folder}"),
            fix="ask whoever published the model for them, and name their folder with --files DIR",
        )
    recipe = parse_recipe(published.recipe_text, source=where, folder=folder)
    if recipe.sha256() != published.lock.recipe_sha256:
        raise ResolutionError(
            "recipe and lock do not belong together: the recipe was changed after the run, or had absolute paths",
            where=str(published.source),
            expected=f"a recipe with the hash {published.lock.recipe_sha256}",
            fix="take an earlier revision of the model: user/model@sha",
        )
    return recipe


def local_paths(recipe_text: str, where: str) -> list[str]:
    """The local files and folders that a published recipe names: they start with `.` or `/`, and no Hub id does."""
    found: list[str] = []

    def look(path: str, key: str, node: Node) -> str:
        if path.startswith((".", "/", "~", "\\")) or path[1:2] == ":":
            found.append(path)
        return path

    map_paths(read_tree(recipe_text, where), look)
    return sorted(set(found))
