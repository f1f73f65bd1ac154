"""Publishing as part of a run: checked before training, fed at every save, told at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.describing import SUMMARY
from inspo_hub.errors import RecipeError
from inspo_hub.plan import LOCK_FILE, Plan
from inspo_hub.publish import Publisher, PublishResult, PublishSettings, repositories, spool_of

if TYPE_CHECKING:
    from inspo_hub.errors import ResolutionError
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)

# Of a training: policy and Adam's two moments in float32, for each checkpoint that is kept and one being written.
BYTES_PER_PARAMETER_BYTE = 3


PUBLISHED = "published.json"
"""In a variant's folder: what of it stands on the Hub, as it was known last. Stays on this machine."""


def note_result(output: Path, result: PublishResult) -> None:
    """Leaves beside a model what stands on the Hub, for `--json` and later commands."""
    hub.write_json(output / PUBLISHED, result.to_dict())


def variant_repositories(recipe: Recipe) -> dict[str, str]:
    """Variant -> the repository it publishes to; empty where the recipe does not publish."""
    sections = {name: variant.publish for name, variant in recipe.variant_recipes().items()}
    return repositories(sections, twins=recipe.has_variants)


def fetch_checkpoints(recipe: Recipe, folders: Mapping[str, Path]) -> None:
    """Puts the newest whole published checkpoint of every variant where the Trainer looks for its own."""
    from inspo_hub.publish.resume import checkpoint_from_hub

    repos = variant_repositories(recipe)
    if not repos:
        raise RecipeError(
            "--resume hub, but the recipe publishes nothing",
            where="publish",
            expected="publish.repo with publish.strategy: checkpoint",
            fix="add a publish section, or use --resume auto",
        )
    for name, repo in repos.items():
        section = recipe.variant_recipes()[name].publish
        assert section is not None, "only variants that publish have a repository"
        if (folders[name] / SUMMARY).is_file():
            continue  # trained to the end: there is nothing to go on with
        if checkpoint_from_hub(repo, folders[name], branch=section.checkpoints_branch) is None:
            log.info("%s: no whole checkpoint on the Hub (%s); starting from the base model", name, repo)


def preflight(
    recipe: Recipe, plans: Mapping[str, Plan], output: Path, cards: Mapping[str, str], *, create: bool = True
) -> list[ResolutionError]:
    """Everything that would stop this run later: repositories that cannot be written, full disks, refused cards.

    Whether models and data can be read was checked when they were pinned.

    Args:
        cards: variant -> the metadata that its card will have.
        create: create repositories that are missing, and check writing to them for real.
    """
    sections = {name: variant.publish for name, variant in recipe.variant_recipes().items()}
    repos = variant_repositories(recipe)
    writes = []
    for name, repo in repos.items():
        section = sections[name]
        assert section is not None, "only variants that publish have a repository"
        writes.append(hub.WriteTarget(repo, section.private, section.create_pr))
    published = [(f"card of {name}", text) for name, text in cards.items() if name in repos]
    return hub.preflight(writes=writes, disk=_disk_needs(plans, output), cards=published, create=create)


def _disk_needs(plans: Mapping[str, Plan], output: Path) -> list[hub.DiskNeed]:
    needs = []
    for name, plan in plans.items():
        size = hub.download_size(plan.model)
        saves = size * BYTES_PER_PARAMETER_BYTE * (plan.recipe.train.keep_checkpoints + 1) + size
        needs.append(hub.DiskNeed(output, saves, f"checkpoints and result of {name}"))
    downloads = {str(plan.model): hub.download_size(plan.model) for plan in plans.values()}
    needs.append(hub.DiskNeed(hub.cache_dir(), sum(downloads.values()), "downloads"))
    return needs


@dataclass
class RunPublisher:
    """The publishers of a run, one for each variant that has a repository; used by the first process only."""

    repos: Mapping[str, str]
    _open: dict[str, Publisher] = field(default_factory=dict)

    def open(self, jobs: Sequence[VariantJob]) -> None:
        """Starts them all before training, so that what is in their way is found now; finishes what is left over.

        Raises:
            PublishError: another run works on the same output folder, or its record cannot be read.
        """
        for job in jobs:
            (job.output / PUBLISHED).unlink(missing_ok=True)
            self._publisher(job)

    def on_save(self, job: VariantJob, checkpoint: Path, step: int) -> None:
        """Freezes a sealed checkpoint and what belongs to it; returns at once."""
        publisher = self._publisher(job)
        if publisher is not None:
            publisher.submit(checkpoint, step, "checkpoint", extra=_beside(job.output))

    def finish(self, jobs: Sequence[VariantJob], steps: Mapping[str, int]) -> list[tuple[Path, PublishResult]]:
        """Publishes the results and their cards, waits as long as the recipe says, and reports what is there."""
        for job in jobs:
            publisher = self._publisher(job)
            if publisher is not None:
                publisher.submit(job.output, steps[job.name], "final")
        deadline = time.monotonic() + max((each.settings.wait_s for each in self._open.values()), default=0.0)
        results = []
        for job in [job for job in jobs if job.name in self._open]:
            # All of them push at the same time: what one waited is not waited again for the next.
            result = self._open.pop(job.name).finish(max(0.0, deadline - time.monotonic()))
            note_result(job.output, result)
            results.append((job.output, result))
        return results

    def abandon(self) -> None:
        """Ends without waiting; what is frozen stays in the spool for `inspo-hub publish` or the next run."""
        for publisher in self._open.values():
            publisher.finish(0)

    def _publisher(self, job: VariantJob) -> Publisher | None:
        if job.name not in self.repos:
            return None
        if job.name not in self._open:
            settings = PublishSettings.of(job.recipe.publish)
            self._open[job.name] = Publisher(settings, self.repos[job.name], spool_of(job.output))
        return self._open[job.name]


def _beside(output: Path) -> dict[str, Path]:
    """The files of the output folder that belong to a checkpoint: with them, another machine goes on as this one."""
    names = ("metrics.jsonl", "timings.jsonl", LOCK_FILE)
    return {name: output / name for name in names if (output / name).is_file()}
