"""The application: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from inspo_hub import __version__
from inspo_hub.errors import INTERRUPTED_EXIT_CODE, InspoError

RECIPES, TRAINING, HUB = "Recipes", "Training", "Hub"
"""Groups of `inspo-hub --help`."""

COMMAND_MODULES = (
    "recipes",
    "preview",
    "plan",
    "doctor",
    "training",
    "evaluate",
    "report",
    "submit",
    "migrate",
    "adapters",
    "hub",
    "space",
)
"""Importing them registers their commands, in the order of `--help`."""

app = typer.Typer(
    name="inspo-hub",
    help="Preference optimisation from one recipe: DPO and InSPO twins, trained, compared, published.",
    no_args_is_help=True,
    # Ours would be shown twice, and a bug keeps its plain traceback for the report.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs; errors too.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. train.lr=1e-6; may be repeated.")
]

_SAME_EVERYWHERE = (2, 3, INTERRUPTED_EXIT_CODE)
"""Exit codes of what goes wrong alike in every process of a launch: said once, by the first."""

# typer ships its own copy of click since 0.2x and imports it before: the class is found where its subclass is public.
_UsageError: type[Exception] = next(
    parent
    for parent in typer.BadParameter.__mro__
    if issubclass(parent, Exception) and parent.__name__ == "ClickException"
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"inspo_hub {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Preference optimisation from one recipe: DPO and InSPO twins, trained, compared, published."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 done, that of the `InspoError`, 130 interrupted."""
    for module in COMMAND_MODULES:
        import_module(f"inspo_hub.cli.{module}")
    given = list(sys.argv[1:] if arguments is None else arguments)
    _set_up_logging()
    as_json = "--json" in given
    try:
        result = app(args=given, prog_name=_program(), standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except InspoError as error:
        return _failed(str(error), error.to_dict(), error.exit_code, as_json)
    except _UsageError as error:
        exit_code = int(getattr(error, "exit_code", 2))
        message = str(error.format_message() if hasattr(error, "format_message") else error)
        command = [word for word in given[:1] if not word.startswith("-")]
        fix = " ".join(["inspo-hub", *command, "--help"])
        facts = {"error": "UsageError", "exit_code": exit_code, "what": message, "fix": fix}
        return _failed(f"{message}\n  fix: {fix}", facts, exit_code, as_json) if message else exit_code
    except (KeyboardInterrupt, typer.Abort):
        facts = {"error": "Interrupted", "exit_code": INTERRUPTED_EXIT_CODE, "what": "interrupted"}
        return _failed("interrupted", facts, INTERRUPTED_EXIT_CODE, as_json)
    except BrokenPipeError:
        # Whoever read our output has gone, as in `… | head`: nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _program() -> str:
    """Our name, or that of the `hf` command line's extension: usage and shell completion go by it."""
    return "hf-inspo" if Path(sys.argv[0]).stem == "hf-inspo" else "inspo-hub"


def _failed(message: str, facts: Mapping[str, Any], exit_code: int, as_json: bool) -> int:
    if not is_main_process() and exit_code in _SAME_EVERYWHERE:
        return exit_code
    if as_json:
        typer.echo(json.dumps({"ok": False, **facts}, ensure_ascii=False))
    else:
        say(f"error: {message}", style="red", to_stderr=True)
    return exit_code


def is_main_process() -> bool:
    """Whether this is the process that speaks, of those that `accelerate launch` and `torchrun` start."""
    return os.environ.get("RANK", "0") == "0"


def show(facts: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """A command's result on stdout: one JSON object, or a text for people."""
    if as_json:
        typer.echo(json.dumps({"ok": True, **facts}, ensure_ascii=False))
    else:
        say(text)


def say(text: str, *, style: str = "", to_stderr: bool = False) -> None:
    """A text for people: the first line in colour on a terminal that wants colours, without one elsewhere."""
    from rich.console import Console

    console = Console(stderr=to_stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    first, newline, rest = text.partition("\n")
    console.print(first, style=style or None, end="")
    console.print(newline + rest)


def _set_up_logging() -> None:
    """The package's messages go to stderr, warnings marked as such, from the first process of a launch: the others
    would say the same. Logging that is set up already is left alone."""
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.getLogger().addHandler(handler)
    logging.getLogger("inspo_hub").setLevel(logging.INFO if is_main_process() else logging.ERROR)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return mark + super().format(record)
