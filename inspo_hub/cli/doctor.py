"""The command that looks at recipe, data, base and machine before a long run. It imports torch when it runs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import RECIPES, JsonOption, RecipeArgument, SetOption, app, show
from inspo_hub.recipe import load_recipe


@app.command(rich_help_panel=RECIPES)
def doctor(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where the run would write; only its disk is looked at."),
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", min=2, help="Pairs that the base scores.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Examine base, data and machine before a long run: what was measured, what it means, what to do."""
    from inspo_hub.doctor.examine import examine
    from inspo_hub.workflow import output_folder, quiet_libraries

    loaded = load_recipe(recipe, overrides)
    quiet_libraries()
    with redirect_stdout(sys.stderr):
        diagnosis = examine(loaded, output_folder(loaded, output), pairs=pairs)
    show({"recipe": str(recipe), **diagnosis.to_dict()}, diagnosis.text(), as_json=as_json)
