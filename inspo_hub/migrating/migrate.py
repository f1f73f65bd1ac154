"""A file of another trainer -> a recipe that validates, and an account of every key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.errors import RecipeError
from inspo_hub.migrating.axolotl import is_axolotl, migrate_axolotl
from inspo_hub.migrating.draft import Draft
from inspo_hub.migrating.trl import is_trl, migrate_trl
from inspo_hub.recipe import parse_recipe
from inspo_hub.recipe.reading import read_tree
from inspo_hub.recipe.writing import write_yaml

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

FORMATS = ("alignment-handbook", "SimPO", "TRL", "axolotl")
_ORDER = ("version", "name", "seed", "model", "adapter", "data", "objective", "conditioning", "reference", "train")
_TWINS = {"plain": {"conditioning": "none"}, "inspo": {"conditioning": "symmetric"}}


@dataclass(frozen=True)
class Migrated:
    """The recipe as text and checked, and what became of every key of the source."""

    format: str
    text: str
    recipe: Recipe
    carried: dict[str, str]
    lost: dict[str, str]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "recipe": self.text,
            "sha256": self.recipe.sha256(),
            "carried": self.carried,
            "lost": self.lost,
            "unknown": list(self.unknown),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """What could not be carried over, and what to look at, for people."""
        lines = [f"{self.format}: {len(self.carried)} keys were carried over"]
        lines += [f"  look at: {note}" for note in self.notes]
        lines += [f"  not known, left out: {key}" for key in self.unknown]
        by_reason: dict[str, list[str]] = {}
        for key, why in self.lost.items():
            by_reason.setdefault(why, []).append(key)
        lines += [f"  left out: {', '.join(keys)} ({why})" for why, keys in by_reason.items()]
        return lines


def migrate_file(file: Path, *, processes: int = 1, twins: bool = False) -> Migrated:
    """The recipe that trains what a configuration of another trainer trains.

    Args:
        processes: with how many the configuration was launched; its batch is for each of them.
        twins: also train an InSPO twin of it, on the same pairs.

    Raises:
        RecipeError: it is none of these formats, cannot be read, or what it says is wrong here too.
    """
    source = _read(file)
    name, migrate = _format(source, file)
    draft = Draft(source)
    try:
        migrate(draft, processes=processes)
    except (TypeError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"a value has another form than {name} takes: {error}", where=str(file), expected=f"a {name} configuration"
        ) from error
    recipe = draft.recipe
    recipe["name"] = _run_name(str(recipe.get("name") or file.stem))
    if not recipe["data"]["train"]:
        raise RecipeError("it names no data set", where=str(file), expected="preference pairs to train on")
    if twins:
        del recipe["conditioning"]
        recipe["variants"] = _TWINS
    ordered = {key: recipe[key] for key in (*_ORDER, *recipe) if key in recipe}
    text = write_yaml(ordered)
    checked = parse_recipe(text, source=f"the recipe made of {file}", folder=file.parent)
    return Migrated(name, text, checked, draft.carried, draft.lost, tuple(draft.rest()), tuple(draft.notes))


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror}", expected="a YAML file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file} is not a text: {error.reason}", expected="YAML in UTF-8") from error
    source = read_tree(text, str(file)).plain()
    if not isinstance(source, dict):
        raise RecipeError("not a mapping", where=str(file), expected="`key: value` lines")
    return source


def _format(source: dict[str, Any], file: Path) -> tuple[str, Callable[..., None]]:
    if {"version", "model", "data"} <= set(source):
        raise RecipeError("it is a recipe of inspo_hub already", where=str(file), fix="inspo-hub validate")
    if is_axolotl(source):
        return "axolotl", migrate_axolotl
    if is_trl(source):
        if "gamma_beta_ratio" in source or str(source.get("trainer_type", "")).lower() == "simpo":
            return "SimPO", migrate_trl
        return ("alignment-handbook" if {"dataset_mixer", "dataset_mixture"} & set(source) else "TRL"), migrate_trl
    raise RecipeError(
        f"none of its keys tells its format: {', '.join(list(source)[:8])}",
        where=str(file),
        expected=f"a configuration of {', '.join(FORMATS)}, with model_name_or_path or base_model",
    )


def _run_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:96] or "migrated"
