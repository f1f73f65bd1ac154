"""The command that says what a run will take, before anybody pays. It needs neither weights, GPU nor torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import RECIPES, JsonOption, RecipeArgument, SetOption, app, show
from inspo_hub.errors import InspoError, RecipeError
from inspo_hub.recipe import load_recipe

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


@app.command(rich_help_panel=RECIPES)
def plan(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    flavor: Annotated[
        str, typer.Option("--flavor", metavar="NAME", help="A machine of the Hub's Jobs; auto: the cheapest that fits.")
    ] = "auto",
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="Only machines with so many GPUs; 0: CPUs.")] = None,
    max_usd: Annotated[
        float | None, typer.Option("--max-usd", min=0, help="Exit with 2 if the run is expected to cost more.")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=16, help="Rows to tokenise at most; smaller data are counted exactly.")
    ] = 2048,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first, with torch: a minute or so.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help=f"Append Markdown to ${SUMMARY_VARIABLE}, or to --summary-file.")
    ] = False,
    summary_file: Annotated[
        Path | None, typer.Option("--summary-file", metavar="FILE", help="Append Markdown to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe takes before it starts: tokens, steps, memory, hours, money. No GPU, no weights, no torch."""
    from inspo_hub.plan.report import to_markdown, to_text
    from inspo_hub.planning import plan_recipe

    loaded = load_recipe(recipe, overrides)
    target = _summary_target(summary, summary_file)
    found = plan_recipe(loaded, flavor=flavor, gpus=gpus, sample_rows=sample, calibrate=calibrate)
    if target is not None:
        _append(target, to_markdown(loaded.name, found))
    if max_usd is not None and as_json:
        found.require_at_most(max_usd)
    show({"recipe": str(recipe), "name": loaded.name, **found.to_dict()}, to_text(loaded.name, found), as_json=as_json)
    if max_usd is not None:
        found.require_at_most(max_usd)


def _summary_target(summary: bool, file: Path | None) -> Path | None:
    """Where the Markdown goes; asked before the work is done."""
    if file is not None or not summary:
        return file
    found = os.environ.get(SUMMARY_VARIABLE)
    if not found:
        raise RecipeError(
            f"${SUMMARY_VARIABLE} is not set: this is no step of a workflow",
            where="--summary",
            fix="name a file: --summary-file plan.md",
        )
    return Path(found)


def _append(file: Path, text: str) -> None:
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise InspoError(f"{file} cannot be written: {error.strerror}", fix="choose another file") from error
