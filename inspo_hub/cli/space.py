"""Commands about the Space: look at it on this machine, and bring it to the Hub."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import HUB, JsonOption, app, show

space = typer.Typer(help="The Space: people compare two models' answers, and their votes become data.")
app.add_typer(space, name="space", rich_help_panel=HUB)

OutputArgument = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help="Output folder of a run, or a space.json.", show_default=False)
]
SystemsOption = Annotated[
    str,
    typer.Option(
        metavar="A,B", help="The two to compare: variants, or `base`; otherwise the first two.", show_default=""
    ),
]
LiveOption = Annotated[
    bool | None,
    typer.Option(
        "--live/--precomputed", help="Models answer, or the evaluation's answers are shown; otherwise what there is."
    ),
]


def _names(systems: str) -> list[str]:
    return [name.strip() for name in systems.split(",") if name.strip()]


@space.command()
def preview(
    output: OutputArgument,
    systems: SystemsOption = "",
    live: LiveOption = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Otherwise the first free one from 7860.")] = None,
    votes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where votes are kept; otherwise OUTPUT/votes.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Start the Space on this machine, on the models or the evaluated answers of an output folder."""
    from inspo_hub.space import read_config, space_of_output, space_page, write_config

    with tempfile.TemporaryDirectory(prefix="inspo-space-") as folder:
        if output.suffix == ".json":
            read_config(output)  # what is wrong with it is said here, and not by a page that does not come up
            file, kept = output.resolve(), votes or output.resolve().parent / "votes"
        else:
            backend = None if live is None else "models" if live else "precomputed"
            file, kept = Path(folder) / "space.json", votes or output.resolve() / "votes"
            write_config(file, space_of_output(output, backend=backend, systems=_names(systems)))
        _require_gradio()
        environment = os.environ | {
            "INSPO_SPACE_CONFIG": str(file),
            "INSPO_SPACE_VOTES": str(kept.resolve()),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "PYTHONPATH": os.pathsep.join([str(_package_root()), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        if port is not None:
            environment["GRADIO_SERVER_PORT"] = str(port)
        if open_browser:
            environment["INSPO_SPACE_BROWSER"] = "1"
        show({"votes": str(kept)}, f"votes are kept in {kept}", as_json=as_json)
        return _serve([sys.executable, str(space_page() / "app.py")], environment)


def _serve(command: list[str], environment: Mapping[str, str]) -> int:
    """Runs the page until it is stopped, and lets it end in its own time: it has votes to push."""
    with subprocess.Popen(command, env=environment) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            with suppress(KeyboardInterrupt):  # a terminal sends it to the page as well
                return process.wait()


def _package_root() -> Path:
    import inspo_hub

    return Path(inspo_hub.__file__).resolve().parents[1]


def _require_gradio() -> None:
    from importlib.util import find_spec

    from inspo_hub.errors import RecipeError

    if find_spec("gradio") is None:
        raise RecipeError(
            "the Space needs gradio, which is not installed",
            where="inspo-hub space",
            fix="pip install 'inspo-hub[space]'",
        )


@space.command()
def deploy(
    output: OutputArgument,
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The Space.", show_default=False)],
    systems: SystemsOption = "",
    live: LiveOption = None,
    votes: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Dataset of the votes; otherwise the Space's name and -votes.")
    ] = "",
    private: Annotated[bool, typer.Option("--private/--public", help="Of a new Space and of its votes.")] = True,
    hardware: Annotated[
        str, typer.Option(help="Hardware that the Space's page suggests to those who copy it, such as zero-a10g.")
    ] = "",
    votes_token: Annotated[
        str,
        typer.Option(metavar="VARIABLE", help="Environment variable with a token that the Space pushes votes with."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Create or update the Space on the Hub; nothing is committed where it is up to date."""
    from inspo_hub.space import deploy_space
    from inspo_hub.space.deployment import SpaceWishes

    wishes = SpaceWishes(
        repo=repo,
        systems=tuple(_names(systems)),
        live=live,
        votes=votes or f"{repo}-votes",
        private=private,
        hardware=hardware,
        votes_token=votes_token,
    )
    done = deploy_space(output, wishes)
    show(done.to_dict(), "\n".join(done.lines()), as_json=as_json)


@space.command()
def update(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A Space that `deploy` made.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Bring page and package of this version to a Space; its models, answers and votes stay as they are."""
    from inspo_hub.space import update_space

    done = update_space(repo)
    show({"repo": repo, "sha": done.sha}, f"space: {repo} at {done.sha}", as_json=as_json)
