"""Publishing as part of a run: checked before training, fed at every save, told at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.errors import RecipeError
from inspo_hub.plan import LOCK_FILE, Plan
from inspo_hub.publish import Publisher, PublishResult, PublishSettings, repositories, spool_of
from inspo_hub.publish.resume import checkpoint_from_hub

if TYPE_CHECKING:
    from inspo_hub.errors import ResolutionError
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)

# Of a training: policy and Adam's two moments in float32, for each checkpoint that is kept and one being written.
BYTES_PER_PARAMETER_BYTE = 3


def variant_repositories(recipe: Recipe) -> dict[str, str]:
    """Variant -> the repository it publishes to; empty where the recipe does not publish."""
    sections = {name: variant.publish for name, variant in recipe.variant_recipes().items()}
    return repositories(sections, twins=bool(recipe.variants))


def fetch_checkpoints(recipe: Recipe, folders: Mapping[str, Path]) -> None:
    """Puts the newest whole published checkpoint of every variant where the Trainer looks for its own."""
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
        if checkpoint_from_hub(repo, folders[name], branch=section.checkpoints_branch) is None:
            log.info("%s: no whole checkpoint on the Hub (%s); starting from the base model", name, repo)


def preflight(recipe: Recipe, plans: Mapping[str, Plan], output: Path) -> list[ResolutionError]:
    """Everything that would stop this run later: what cannot be read or written, and disks that are too small."""
    repos = variant_repositories(recipe)
    writes = []
    for name, repo in repos.items():
        section = plans[name].recipe.publish
        assert section is not None, "only variants that publish have a repository"
        writes.append(hub.WriteTarget(repo, section.private, section.create_pr))
    reads = [pinned for plan in plans.values() for pinned in plan.pins.values()]
    return hub.preflight(reads, writes, disk=_disk_needs(plans, output), create=True)


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
        return [(job.output, self._open.pop(job.name).finish()) for job in jobs if job.name in self._open]

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
