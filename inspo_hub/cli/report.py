"""The command that writes an output's report again, from what lies on this disk. It needs neither torch nor the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import TRAINING, JsonOption, app, show


@app.command(rich_help_panel=TRAINING)
def report(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Output folder of a run, or of one of its variants.")
    ],
    html: Annotated[
        bool, typer.Option("--html/--no-html", help="Also as one HTML file, for a browser, offline.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run again: cards, tables with intervals, frontier, curves, answers side by side."""
    from inspo_hub.handover import known_repositories
    from inspo_hub.reporting import write_report

    written = write_report(output, known_repositories(output), page=html)
    show(written.to_dict(), "\n".join(written.lines()), as_json=as_json)
