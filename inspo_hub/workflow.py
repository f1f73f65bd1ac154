"""The whole path of one recipe: pin what it names, prepare pairs, train every variant, evaluate, write cards, tell."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.errors import INTERRUPTED_EXIT_CODE
from inspo_hub.recipe import load_recipe

if TYPE_CHECKING:
    from inspo_hub.publishing import RunPublisher
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)

DEFAULT_OUTPUTS = Path("outputs")


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
    from accelerate import PartialState

    from inspo_hub.preparation import prepare_jobs
    from inspo_hub.publishing import RunPublisher, variant_repositories
    from inspo_hub.training.disk import full_disk_told
    from inspo_hub.training.processes import on_first_process
    from inspo_hub.training.session import Interrupted, train_variant

    state = PartialState()
    quiet_libraries()
    for caution in recipe.cautions:
        log.warning("%s", caution)
    with full_disk_told(output):
        jobs = prepare_jobs(recipe, output, frozen=frozen, resume=resume, pinned=pinned)
    publisher = RunPublisher(variant_repositories(recipe))
    summaries: dict[str, dict[str, Any]] = {}
    exit_code = 0
    try:
        with full_disk_told(output):
            on_first_process(partial(publisher.open, jobs))
            for job in jobs:
                summaries[job.name] = train_variant(job, publisher.on_save)
            if state.is_main_process:
                _conclude(recipe, jobs, summaries, output, publisher.repos)
        if state.is_main_process:
            exit_code = _publish(publisher, jobs, summaries, output)
    except Interrupted as interrupted:
        log.warning("%s; the same command goes on from there", interrupted)
        exit_code = INTERRUPTED_EXIT_CODE
    finally:
        publisher.abandon()
    state.wait_for_everyone()
    return exit_code


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
