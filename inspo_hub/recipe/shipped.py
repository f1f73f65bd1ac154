"""The recipes that come with the package, found in a checkout and in a wheel alike, and copied to start from."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from inspo_hub.errors import InspoError, RecipeError
from inspo_hub.recipe.reading import read_tree

SCHEMA = "recipe.schema.json"
_NOT_RECIPES = ("accelerate",)
"""Folders beside the recipes whose YAML files are no recipes."""


def shipped_folder() -> Path:
    """`inspo_hub/_recipes` of a wheel, `recipes` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> list[str]:
    """Names of the shipped recipes, such as `quickstart`; those in a folder by their path without `.yaml`.

    Files whose names begin with `_` are what several recipes extend, and no recipes.
    """
    folder = shipped_folder()
    files = (path.relative_to(folder) for path in folder.rglob("[!_]*.yaml"))
    return sorted(file.with_suffix("").as_posix() for file in files if file.parts[0] not in _NOT_RECIPES)


def copy_recipe(name: str, target: Path, *, overwrite: bool = False) -> list[Path]:
    """Copies a shipped recipe, what it extends, the folders that belong to them and the schema; the recipe comes first.

    Raises:
        RecipeError: no such recipe, or a file is there already and `overwrite` is not set; nothing is copied then.
        InspoError: a file cannot be written; what was copied is taken back.
    """
    names = shipped_recipes()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        fix = f"did you mean {near[0]}?" if near else "inspo-hub init --list"
        raise RecipeError(f"no recipe {name!r} is shipped", expected=", ".join(names), fix=fix)
    source = shipped_folder()
    files = list(dict.fromkeys(_belonging(source / f"{name}.yaml")))
    files += [source / SCHEMA]
    copies = [target / file.relative_to(source) for file in files]
    there = [str(copy) for copy in copies if copy.exists()]
    if there and not overwrite:
        raise RecipeError(f"already there: {', '.join(there)}", fix="choose another folder, or --force")
    _copy(files, copies)
    return copies


def _copy(files: Sequence[Path], copies: Sequence[Path]) -> None:
    """All of the files, or none where one cannot be written."""
    done: list[Path] = []
    try:
        for file, copy in zip(files, copies, strict=True):
            done.append(copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    except OSError as error:
        for copy in done:
            if copy.is_file():
                copy.unlink()
        what = f"{done[-1]} cannot be written: {error.strerror}"
        raise InspoError(what, fix="choose a folder that can be written and has room") from error


def _belonging(recipe: Path) -> Iterator[Path]:
    """The recipe, the files of the folder of its name, and the same of the recipe that it extends."""
    yield recipe
    beside = recipe.with_suffix("")
    if beside.is_dir():
        yield from sorted(file for file in beside.rglob("*") if file.is_file() and not _is_left_out(file))
    tree = read_tree(recipe.read_text(encoding="utf-8"), str(recipe))
    parent = tree.value.get("extends") if isinstance(tree.value, dict) else None
    if parent is not None and isinstance(parent.value, str):
        yield from _belonging((recipe.parent / parent.value).resolve())


def _is_left_out(file: Path) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in file.parts[-3:])
