"""Commands that train. They import torch when they run, and not before."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import TRAINING, JsonOption, RecipeArgument, SetOption, app, is_main_process, show


class Resume(StrEnum):
    auto = "auto"
    hub = "hub"
    none = "none"


@app.command(rich_help_panel=TRAINING)
def run(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Output folder; otherwise outputs/<name>.")
    ] = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Refuse to run if anything differs from lock.json.")] = False,
    resume: Annotated[
        Resume,
        typer.Option("--resume", help="Go on from a checkpoint in the output folder, on the Hub, or not at all."),
    ] = Resume.auto,
    as_json: JsonOption = False,
) -> int:
    """Train what a recipe says. The same as `python -m inspo_hub.run` and `accelerate launch -m inspo_hub.run`."""
    from inspo_hub.workflow import outcome
    from inspo_hub.workflow import run as run_recipe

    if not as_json:
        return run_recipe(recipe, overrides, output=output, frozen=frozen, resume=resume.value)
    with redirect_stdout(sys.stderr):
        exit_code = run_recipe(recipe, overrides, output=output, frozen=frozen, resume=resume.value)
    if is_main_process():
        facts = {"ok": exit_code == 0, "exit_code": exit_code, "recipe": str(recipe)}
        show({**facts, **outcome(recipe, overrides, output=output)}, "", as_json=True)
    return exit_code


@app.command(rich_help_panel=TRAINING)
def iterate(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, metavar="N", help="Rounds in all; otherwise iterate.rounds.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Output folder; otherwise outputs/<name>.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train in rounds: sample the policy, judge its answers, make pairs, train on them. The same command goes on."""
    from inspo_hub.iterating import iterate as iterate_rounds
    from inspo_hub.iterating import results

    if not as_json:
        return iterate_rounds(recipe, overrides, rounds=rounds, output=output)
    with redirect_stdout(sys.stderr):
        exit_code = iterate_rounds(recipe, overrides, rounds=rounds, output=output)
    facts = {"ok": exit_code == 0, "exit_code": exit_code, "recipe": str(recipe)}
    show({**facts, **results(recipe, overrides, output=output)}, "", as_json=True)
    return exit_code
