"""A loaded recipe as plain data for a later process: no file is looked up again, and its hash stays the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from inspo_hub.recipe.schema import Recipe


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """Every key, with the paths of this machine, and how they were written."""
    return {"recipe": recipe.model_dump(mode="json"), "written_paths": dict(recipe._written_paths)}


def from_plain(plain: Mapping[str, Any]) -> Recipe:
    """The recipe that `to_plain` was given; its files may have gone since."""
    recipe = Recipe.model_validate_json(json.dumps(plain["recipe"]), strict=True)
    recipe._written_paths.update(plain["written_paths"])
    return recipe
