"""The whole path of one recipe: pin what it names, prepare pairs, train every variant, evaluate, write cards, tell."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from inspo_hub import hub
from inspo_hub.errors import INTERRUPTED_EXIT_CODE, RecipeError
from inspo_hub.recipe import load_recipe

if TYPE_CHECKING:
    from inspo_hub.publishing import RunPublisher
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)

DEFAULT_OUTPUTS = Path("outputs")

COLLECTIVES_WAIT = timedelta(days=1)
"""How long processes wait for each other. The first one downloads, tokenises, evaluates and publishes alone, which may
take hours; NCCL's own ten minutes would end the run there. A process that died is noticed at once, whatever this is."""


def run(
    recipe_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    frozen: bool = False,
    resume: str = "auto",
) -> int:
    """Runs a recipe from its file to trained variants; returns the exit code (0, or 130 where a signal stopped it).

    Args:
        overrides: dotted `key=value` settings, as `--set` takes them.
        output: folder of the results; `outputs/<name>` by default. With variants, each has a folder of its own below.
        frozen: refuse anything that moved since the output's lock was written.
        resume: `auto` goes on from the newest whole checkpoint in the output, `none` starts over.

    Raises:
        InspoError: whatever is wrong, with its exit code.
    """
    recipe = load_recipe(recipe_path, overrides)
    return run_recipe(recipe, output_folder(recipe, output), frozen=frozen, resume=resume)


def output_folder(recipe: Recipe, output: str | Path | None) -> Path:
    """Where the results of a recipe go."""
    return Path(output) if output else DEFAULT_OUTPUTS / recipe.name


def run_recipe(
    recipe: Recipe, output: Path, *, frozen: bool = False, resume: str = "auto", pinned: bool = False
) -> int:
    """The same for a recipe that is loaded already.

    Args:
        pinned: take every commit from the lock in `output`, wherever its branch is now, and refuse anything else that
            differs from it.
    """
    from inspo_hub.training.engine import join_launch
    from inspo_hub.training.stopping import sigterm_interrupts

    state = join_launch(timeout=COLLECTIVES_WAIT)
    quiet_libraries()
    for caution in recipe.cautions:
        log.warning("%s", caution)
    try:
        with sigterm_interrupts(), _only_run_in(output), _said_once():
            exit_code = _run(recipe, output, frozen=frozen, resume=resume, pinned=pinned)
    except KeyboardInterrupt:  # outside of the training steps, which stop by themselves: see `StopRequest`
        log.warning("interrupted; the same command goes on from what is done")
        return INTERRUPTED_EXIT_CODE
    state.wait_for_everyone()
    return exit_code


def _run(recipe: Recipe, output: Path, *, frozen: bool, resume: str, pinned: bool) -> int:
    from accelerate import PartialState

    from inspo_hub.preparation import prepare_jobs
    from inspo_hub.publishing import RunPublisher, variant_repositories
    from inspo_hub.training.disk import full_disk_told
    from inspo_hub.training.processes import on_first_process
    from inspo_hub.training.session import Interrupted, train_variant

    with full_disk_told(output):
        jobs = prepare_jobs(recipe, output, frozen=frozen, resume=resume, pinned=pinned)
    publisher = RunPublisher(variant_repositories(recipe))
    summaries: dict[str, dict[str, Any]] = {}
    try:
        with full_disk_told(output):
            on_first_process(partial(publisher.open, jobs))
            for job in jobs:
                summaries[job.name] = train_variant(job, publisher.on_save)
            if not PartialState().is_main_process:
                return 0
            _conclude(recipe, jobs, summaries, output, publisher.repos)
        return _publish(publisher, jobs, summaries, output)
    except Interrupted as interrupted:
        log.warning("%s; the same command goes on from there", interrupted)
        return INTERRUPTED_EXIT_CODE
    finally:
        publisher.abandon()


@contextmanager
def _only_run_in(output: Path) -> Iterator[None]:
    """Keeps other runs out of the output folder; the operating system lets go of it when this process ends, however.

    Raises:
        RecipeError: another run works there, or nothing can be written there.
    """
    from inspo_hub.training.processes import on_first_process

    name = hub.digest({"output": str(output.resolve())})
    lock = FileLock(hub.cache_dir() / "running" / f"{name}.lock")

    def take() -> None:
        _refuse_unwritable(output)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RecipeError(
                "another run is working in this output folder",
                where=str(output),
                expected="one run at a time",
                fix="wait for that run or stop it, or choose another folder: --output DIR",
            ) from error

    on_first_process(take)
    try:
        yield
    finally:
        lock.release()


def _refuse_unwritable(output: Path) -> None:
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(
            f"{there} is no folder that this user may write to",
            where=f"output {output}",
            expected="a folder, or a place where one can be made",
            fix="choose another one: --output DIR",
        )


@contextmanager
def _said_once() -> Iterator[None]:
    """Twins of one base would say the same about it: how it is packed, and what their reference is."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in said
        said.add(text)
        return new

    loggers = [logging.getLogger(name) for name in ("inspo_hub.logprobs.check", "inspo_hub.training.reference_pass")]
    for logger in loggers:
        logger.addFilter(is_new)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_new)


def _conclude(
    recipe: Recipe,
    jobs: Sequence[VariantJob],
    summaries: dict[str, dict[str, Any]],
    output: Path,
    repos: Mapping[str, str],
) -> None:
    """Everything that the output holds beside the models: answers, measurements, cards."""
    from inspo_hub.finishing import evaluate, tell
    from inspo_hub.measuring import measure
    from inspo_hub.reporting import write_report

    compared = evaluate(recipe, jobs, summaries, output)
    measure(recipe, jobs, summaries, output)
    # A model's own card is its report; several are compared on a page.
    report = write_report(output, repos, page=recipe.has_variants)
    tell(jobs, output, report.lines() if recipe.has_variants or compared is not None else [])


def _publish(
    publisher: RunPublisher, jobs: Sequence[VariantJob], summaries: dict[str, dict[str, Any]], output: Path
) -> int:
    """Waits for the Hub as long as the recipe says and tells what stands there; 5 where something does not."""
    results = publisher.finish(jobs, {name: summary["steps"] for name, summary in summaries.items()})
    for _, result in results:
        told = [f"published {result.repo_id}", *(f"  {line}" for line in result.lines(str(output)))]
        log.info("%s", "\n".join(told))
    return max((result.exit_code for _, result in results), default=0)


def outcome(
    recipe_path: str | Path, overrides: Sequence[str] = (), *, output: str | Path | None = None
) -> dict[str, Any]:
    """Where the results of a run are, on this machine and on the Hub, for programs."""
    from inspo_hub.preparation import variant_folders
    from inspo_hub.publishing import PUBLISHED

    recipe = load_recipe(recipe_path, overrides)
    run_folder = output_folder(recipe, output)
    variants = {}
    for name, folder in variant_folders(recipe, run_folder).items():
        file = folder / PUBLISHED
        published = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        variants[name] = {"output": str(folder), "published": published}
    return {"output": str(run_folder), "variants": variants}


def quiet_libraries() -> None:
    """Progress bars of single files, and hints that are not about the recipe, stay out of the way."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
