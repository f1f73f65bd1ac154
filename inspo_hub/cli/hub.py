"""Commands about the Hub: bring an output there, and train again what was published there."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import HUB, JsonOption, app, is_main_process, show

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9{][\w.{}-]*")


def _repo(value: str | None) -> str | None:
    if value is not None and not _REPO.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is no repository `owner/name`")
    return value


@app.command(rich_help_panel=HUB)
def publish(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Output folder of a run, or of one of its variants.")
    ],
    repo: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", callback=_repo, help="Where to; otherwise where the run published to."),
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a repository that is created; otherwise private.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of writing to the repository.")
    ] = False,
    collection: Annotated[
        bool,
        typer.Option("--collection", help="Also publish the comparison of the variants, and a Collection of it all."),
    ] = False,
    wait: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0, help="How long to wait for the Hub; otherwise 10.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Bring to the Hub what of an output folder is not there: what a run left, or all of it for the first time."""
    from inspo_hub.handover import Wishes, hand_over

    wishes = Wishes(
        repo=repo,
        private=private,
        create_pr=create_pr or None,
        wait_s=None if wait is None else wait * 60,
        collection=collection,
    )
    done = hand_over(output, wishes)
    show(done.to_dict(), "\n".join(done.lines()), as_json=as_json)
    return done.exit_code


@app.command(rich_help_panel=HUB)
def reproduce(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A published model: user/model, or user/model@sha.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Output folder; otherwise outputs/<name>-reproduced."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Say what would be trained and what differs here, and train nothing.")
    ] = False,
    files: Annotated[
        Path | None, typer.Option("--files", metavar="DIR", help="Folder of the local files that the recipe names.")
    ] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the Python code that the recipe names.")
    ] = False,
    skip_evaluation: Annotated[
        bool, typer.Option("--skip-evaluation", help="Leave out the generated answers and their judge.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest difference of a metric that counts as equal.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train a published model again, from its recipe and lock, and compare what comes out."""
    from inspo_hub.reproducing import Request, plan_again, train_again

    request = Request(model=model, output=output, files=files, trust_code=trust_code, skip_evaluation=skip_evaluation)
    if plan_only:
        planned = plan_again(request)
        show(planned.to_dict(), "\n".join(planned.lines()), as_json=as_json)
        return 0
    if not as_json:
        done = train_again(request, tolerance)
    else:
        with redirect_stdout(sys.stderr):
            done = train_again(request, tolerance)
    if is_main_process():
        show(done.to_dict(), "\n".join(done.lines()), as_json=as_json)
    return done.exit_code
