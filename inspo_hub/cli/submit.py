"""The command that runs a recipe on the Hub's machines. It needs no torch."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspo_hub.cli.app import TRAINING, JsonOption, RecipeArgument, SetOption, app, show
from inspo_hub.errors import RecipeError

if TYPE_CHECKING:
    from inspo_hub import hub
    from inspo_hub.recipe import Recipe
    from inspo_hub.submitting import Submission, Wishes

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class JobResume(StrEnum):
    auto = "auto"
    hub = "hub"
    none = "none"


def _timeout(value: str) -> str:
    if value != "auto" and _seconds(value) is None:
        raise typer.BadParameter(f"{value!r} is no time such as 90m, 6h, 2d, or auto")
    return value


def _seconds(value: str) -> int | None:
    """`90m` -> 5400; None for `auto`, and for what is no time."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    return round(float(found[1]) * _UNITS[found[2]]) or None if found else None


FlavorOption = Annotated[
    str, typer.Option("--flavor", metavar="NAME", help="A machine of the Hub's Jobs; auto: the cheapest that fits.")
]
GpusOption = Annotated[int | None, typer.Option("--gpus", min=0, help="Only machines with so many GPUs; 0: CPUs.")]
MoneyOption = Annotated[
    float | None, typer.Option("--max-usd", min=0, help="Refuse a dearer run, and end the Job before it costs more.")
]
TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="TIME", callback=_timeout, help="90m, 6h; auto: the plan's, with a margin.")
]
DetachOption = Annotated[
    bool, typer.Option("--detach", "-d", help="Start it and come back; --attach follows it later.")
]
AttachOption = Annotated[bool, typer.Option("--attach", help="Follow the Job of this recipe that runs, start none.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the whole request and start nothing.")]
ResumeOption = Annotated[
    JobResume, typer.Option("--resume", help="auto: from the Hub where the recipe publishes its checkpoints.")
]
ResubmitOption = Annotated[
    int, typer.Option("--resubmit", min=0, help="How often a Job that was lost is started again, from the Hub.")
]
CancelOption = Annotated[
    bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the Job; otherwise it runs on.")
]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="User or organisation that pays.")
]
ImageOption = Annotated[str | None, typer.Option("--image", help="Docker image with bash and uv; otherwise uv's own.")]
PackageOption = Annotated[
    str | None, typer.Option("--package", metavar="REQUIREMENT", help="What uv installs instead of this version.")
]
SecretOption = Annotated[
    list[str], typer.Option("--secret", metavar="NAME", help="Also pass this environment variable, as a secret.")
]


@app.command(rich_help_panel=TRAINING)
def submit(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    flavor: FlavorOption = "auto",
    gpus: GpusOption = None,
    max_usd: MoneyOption = None,
    timeout: TimeoutOption = "auto",
    detach: DetachOption = False,
    attach: AttachOption = False,
    dry_run: DryRunOption = False,
    resume: ResumeOption = JobResume.auto,
    resubmit: ResubmitOption = 2,
    cancel: CancelOption = False,
    namespace: NamespaceOption = None,
    image: ImageOption = None,
    package: PackageOption = None,
    secrets: SecretOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> int:
    """Run a recipe on a machine of the Hub: the same recipe, as a Job, followed to its end."""
    from inspo_hub.recipe import load_recipe
    from inspo_hub.submitting import DEFAULT_IMAGE, Wishes, start

    loaded = load_recipe(recipe, overrides)
    wishes = Wishes(
        max_usd=max_usd,
        timeout_s=_seconds(timeout),
        namespace=namespace,
        image=image or DEFAULT_IMAGE,
        package=package,
        resume=resume.value,
        secrets=tuple(secrets),
    )
    submission = _submission(loaded, wishes, flavor, gpus)
    if dry_run:
        show({"dry_run": True, **submission.to_dict()}, submission.to_text(), as_json=as_json)
        return 0
    job = _job_to_follow(loaded, submission, attach=attach) or start(submission)
    if detach:
        return _leave(submission, job, recipe, as_json=as_json)
    return _follow(submission, job, resubmit=resubmit, cancel=cancel, as_json=as_json)


def _leave(submission: Submission, job: hub.Job, recipe: Path, *, as_json: bool) -> int:
    text = f"runs: {job.url}\n  follow: inspo-hub submit {recipe} --attach\n  cancel: hf jobs cancel {job.id}"
    show({"job": job.to_dict(), **submission.to_dict()}, text, as_json=as_json)
    return 0


def _follow(submission: Submission, job: hub.Job, *, resubmit: int, cancel: bool, as_json: bool) -> int:
    from inspo_hub.submitting import follow_to_the_end

    done = follow_to_the_end(
        submission, job, lambda line: typer.echo(line, err=as_json), resubmit=resubmit, cancel=cancel
    )
    facts = {"ok": done.exit_code == 0, **done.to_dict(), **submission.to_dict()}
    words = "done" if done.exit_code == 0 else f"ended with exit code {done.exit_code}"
    show(facts, f"{words}: {done.jobs[-1].url}, ${done.usd:.2f}", as_json=as_json)
    return done.exit_code


def _submission(recipe: Recipe, wishes: Wishes, flavor: str, gpus: int | None) -> Submission:
    from inspo_hub.planning import plan_recipe
    from inspo_hub.submitting import check_travels, make_submission

    check_travels(recipe)
    return make_submission(recipe, plan_recipe(recipe, flavor=flavor, gpus=gpus), wishes)


def _job_to_follow(recipe: Recipe, submission: Submission, *, attach: bool) -> hub.Job | None:
    """The running Job that --attach asks for; without it a running one is refused, and None says: start one."""
    from inspo_hub.submitting import refuse_to_start, running_job

    running = running_job(recipe, submission.request.namespace)
    if attach and running is None:
        raise RecipeError(
            "no Job of this recipe is running",
            where="--attach",
            expected=f"a Job with the label of recipe {submission.recipe_sha256[:12]}",
            fix="start one: the same command without --attach",
        )
    if attach:
        return running
    if running is not None:
        raise RecipeError(
            f"a Job of this recipe is running already: {running.url}",
            where="submit",
            expected="one Job at a time for one recipe: both would publish to the same repository",
            fix=f"follow it with --attach, or end it with `hf jobs cancel {running.id}`",
        )
    refuse_to_start(submission)
    return None
