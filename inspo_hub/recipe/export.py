"""The recipe format as a JSON schema, for editors and linters: whole files, files that extend another, variants."""

from __future__ import annotations

import copy
import json
from typing import Any

from inspo_hub.recipe.checks import NOT_IN_VARIANTS
from inspo_hub.recipe.merging import UNIONS
from inspo_hub.recipe.schema import Recipe

_DEFINITIONS = "#/$defs/"
_PARTIAL = "Partial"
EXTENDS = "Recipe that this one is merged over, relative to this file; its own paths stay relative to itself."


def recipe_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a recipe file; keys may be missing where `extends` or the recipe around has them."""
    whole = whole_schema()
    definitions = whole.pop("$defs")
    partial = {_PARTIAL + name: _loosened(schema) for name, schema in definitions.items()}
    extending = _loosened(whole)
    extending["properties"]["extends"] = {"type": "string", "description": EXTENDS}
    variant = copy.deepcopy(extending)
    variant["properties"] = {key: child for key, child in variant["properties"].items() if key not in NOT_IN_VARIANTS}
    for schema in (whole, extending):
        variants = schema["properties"]["variants"]
        variants["type"] = ["object", "null"]
        variants["additionalProperties"] = {"anyOf": [{"$ref": _DEFINITIONS + "Variant"}, {"type": "null"}]}
        sweep = schema["properties"]["sweep"]
        sweep["type"] = ["object", "null"]
        # `objective: {beta: [..]}` is `objective.beta: [..]`.
        sweep["additionalProperties"] = {"anyOf": [sweep["additionalProperties"], {"type": "object"}]}
    named = {"Recipe": whole, "ExtendingRecipe": extending, "Variant": variant}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "inspo_hub recipe, version 1",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": _DEFINITIONS + "ExtendingRecipe"},
        "else": {"$ref": _DEFINITIONS + "Recipe"},
        "$defs": dict(sorted({**named, **definitions, **partial}.items())),
    }
    return _without_titles(schema)


def whole_schema() -> dict[str, Any]:
    """pydantic's JSON schema of a recipe, where an objective and a conditioning may be a name alone."""
    schema = Recipe.model_json_schema()
    for section in UNIONS:
        key = schema["properties"][section]
        union = {word: key.pop(word) for word in ("oneOf", "discriminator")}
        key["anyOf"] = [{"type": "string", "enum": list(union["discriminator"]["mapping"])}, union]
        for reference in union["discriminator"]["mapping"].values():
            # The discriminator reads it: a mapping without a name is no objective, whatever the field's default.
            definition = schema["$defs"][reference.removeprefix(_DEFINITIONS)]
            definition["required"] = ["name", *definition.get("required", ())]
    return schema


def schema_text() -> str:
    """The JSON schema as it is shipped beside the recipes."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _loosened(schema: Any) -> Any:
    """The same where every key of a mapping may be missing, so that a union no longer tells its members apart."""
    if isinstance(schema, list):
        return [_loosened(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    loose: dict[str, Any] = {}
    for key, child in schema.items():
        if key == "$ref":
            loose[key] = _DEFINITIONS + _PARTIAL + child.removeprefix(_DEFINITIONS)
        elif key == "properties":
            loose[key] = {name: _loosened(property) for name, property in child.items()}
        elif key == "oneOf":
            loose["anyOf"] = _loosened(child)
        elif key not in ("required", "discriminator", "default"):
            loose[key] = _loosened(child)
    return loose


def _without_titles(schema: Any) -> Any:
    """Drops pydantic's titles, which repeat the keys; a key that is called `title` would stay."""
    if isinstance(schema, list):
        return [_without_titles(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(property) for name, property in child.items()}
        if key in ("properties", "$defs")
        else _without_titles(child)
        for key, child in schema.items()
        if key != "title" or str(child).startswith("inspo_hub recipe")
    }
