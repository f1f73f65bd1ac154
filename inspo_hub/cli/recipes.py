"""Commands about recipes, for a laptop without network: validate, schema, init."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from inspo_hub.cli.app import RECIPES, JsonOption, RecipeArgument, SetOption, app, show
from inspo_hub.errors import InspoError
from inspo_hub.recipe import Recipe, load_recipe


class SchemaFormat(StrEnum):
    json = "json"
    markdown = "markdown"


@app.command(rich_help_panel=RECIPES)
def validate(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    resolved: Annotated[bool, typer.Option("--resolved", help="Print the resolved recipe, every key of it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe: every unknown key, wrong value and missing file at once, with its line."""
    loaded = load_recipe(recipe, overrides)
    facts: dict[str, Any] = {"recipe": str(recipe), **_facts(loaded)}
    if resolved:
        facts["resolved"] = loaded.portable()
    show(facts, loaded.to_yaml().rstrip() if resolved else _summary(recipe, loaded), as_json=as_json)


def _facts(recipe: Recipe) -> dict[str, Any]:
    variants = {
        name: {
            "objective": variant.objective.name,
            "conditioning": variant.conditioning.name,
            "sha256": variant.sha256(),
        }
        for name, variant in recipe.variant_recipes().items()
    }
    return {
        "name": recipe.name,
        "sha256": recipe.sha256(),
        "variants": variants,
        "cautions": list(recipe.cautions),
    }


def _summary(path: Path, recipe: Recipe) -> str:
    lines = [
        f"{path} is valid",
        f"  name: {recipe.name}",
        f"  sha256: {recipe.sha256()}",
        f"  model: {recipe.model.id}",
    ]
    lines += [f"  data: {source.id} ({source.split})" for source in recipe.data.train]
    for name, variant in recipe.variant_recipes().items():
        lines.append(f"  trains {name}: {variant.objective.name} × {variant.conditioning.name}")
    return "\n".join([*lines, *(f"  caution: {caution}" for caution in recipe.cautions)])


@app.command(rich_help_panel=RECIPES)
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; otherwise printed.")] = None,
    form: Annotated[
        SchemaFormat, typer.Option("--format", help="JSON schema, or a reference page.")
    ] = SchemaFormat.json,
    as_json: JsonOption = False,
) -> None:
    """Print every key of a recipe, for editors (JSON schema) or for people (Markdown)."""
    from inspo_hub.recipe.export import recipe_schema, schema_text
    from inspo_hub.recipe.reference import reference_page

    text = schema_text() if form is SchemaFormat.json else reference_page()
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise InspoError(f"{output} cannot be written: {error.strerror}", fix="choose another file") from error
        show({"written": str(output)}, f"wrote {output}", as_json=as_json)
    elif as_json:
        show({"schema": recipe_schema()} if form is SchemaFormat.json else {"page": text}, "", as_json=True)
    else:
        typer.echo(text, nl=False)


@app.command(rich_help_panel=RECIPES)
def init(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A shipped recipe; --list names them.")] = "quickstart",
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to copy it.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the shipped recipes and copy nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a shipped recipe, with its data and what it extends, to start from."""
    from inspo_hub.recipe.shipped import copy_recipe, shipped_recipes

    if listed:
        names = shipped_recipes()
        show({"recipes": names}, "\n".join(names), as_json=as_json)
        return
    files = copy_recipe(name, folder, overwrite=force)
    recipe = files[0]
    text = f"copied {len(files)} files; next:\n  inspo-hub validate {recipe}\n  inspo-hub run {recipe}"
    show({"recipe": str(recipe), "files": [str(file) for file in files]}, text, as_json=as_json)
