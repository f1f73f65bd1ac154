"""The command that has answers judged: of a run's variants, or of any model."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import TRAINING, JsonOption, SetOption, app, show


@app.command(rich_help_panel=TRAINING)
def evaluate(
    target: Annotated[
        str,
        typer.Argument(metavar="OUTPUT|MODEL", help="Output folder of a run, or a model: user/model, user/model@sha."),
    ],
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            metavar="WHO",
            help="base, baseline (a benchmark's own answers), a model, or a file of answers; may be repeated.",
        ),
    ] = [],  # noqa: B006  (typer reads the default and copies it)
    overrides: SetOption = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to; otherwise OUTPUT/evaluation.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="The base of a model, where its card is silent; none.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate answers, have them judged, compare: by the recipe's `evaluate:`, or by what --set evaluate.… says."""
    from inspo_hub.evaluate.report import to_text
    from inspo_hub.evaluating import Request, evaluate_target

    request = Request(target=target, against=against, overrides=overrides, output=output, base=base)
    with redirect_stdout(sys.stderr):
        result, folder = evaluate_target(request)
    text = f"{to_text(result)}\nwritten to {folder / 'report'}"
    show({"output": str(folder), **result.to_dict()}, text, as_json=as_json)
