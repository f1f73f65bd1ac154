"""The command that makes a recipe of another trainer's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import RECIPES, JsonOption, app, say, show
from inspo_hub.errors import InspoError


@app.command(rich_help_panel=RECIPES)
def migrate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A configuration of alignment-handbook, SimPO, TRL or axolotl.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; otherwise printed.")
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="With how many it was launched: its batch is for each of them.")
    ] = 1,
    twins: Annotated[bool, typer.Option("--twins", help="Also train an InSPO twin, on the same pairs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a recipe of another trainer's DPO configuration, and say what could not be carried over."""
    from inspo_hub.migrating import migrate_file

    if output is not None and output.exists() and not force:
        raise InspoError(f"already there: {output}", fix="choose another --output, or --force")
    done = migrate_file(file, processes=processes, twins=twins)
    if output is not None:
        try:
            output.write_text(done.text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise InspoError(f"{output} cannot be written: {error.strerror}", fix="choose another file") from error
    account = "\n".join(done.lines())
    if output is not None or as_json:
        written = {} if output is None else {"written": str(output)}
        show({**done.to_dict(), **written}, f"wrote {output}\n{account}", as_json=as_json)
        return
    typer.echo(done.text, nl=False)
    say(account, to_stderr=True)
