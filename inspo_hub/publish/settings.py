"""How a run publishes: which saves, where to, how long to try. Plain values, so that it works without a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inspo_hub.errors import RecipeError
from inspo_hub.hub import Patience

Strategy = Literal["end", "every_save", "checkpoint"]

WORKER_PATIENCE = Patience(attempts=1_000_000, base_s=2.0, ceiling_s=300.0, longest_wait_s=3600.0)
"""While training goes on, a push is tried until a newer one replaces it; the end is bounded by `wait_s`."""


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """What is pushed when. Strategies: `end` the result, `every_save` also the weights of each save to the same branch,
    `checkpoint` also the resumable state of each save to `checkpoints_branch`."""

    strategy: Strategy = "every_save"
    branch: str = "main"
    checkpoints_branch: str = "checkpoints"
    private: bool | None = None
    create_pr: bool = False
    wait_s: float = 600.0
    """How long `finish` waits for the Hub at most."""
    interval_s: float = 60.0
    """Seconds between two pushes of checkpoints at least: the Hub allows 128 commits an hour."""
    patience: Patience = WORKER_PATIENCE

    @classmethod
    def of(cls, section: Any) -> PublishSettings:
        """The settings of a recipe's `publish` section (any object with its keys)."""
        return cls(
            strategy=section.strategy,
            branch=section.branch,
            checkpoints_branch=section.checkpoints_branch,
            private=section.private,
            create_pr=section.create_pr,
            wait_s=section.wait_minutes * 60.0,
        )


def repository_of(repo: str, variant: str | None) -> str:
    """The repository of one variant: `{variant}` is filled in; without it, twins get `-<variant>` behind the name."""
    if variant is None:
        return repo.replace("-{variant}", "").replace("{variant}", "")
    return repo.replace("{variant}", variant) if "{variant}" in repo else f"{repo}-{variant}"


def repositories(sections: Mapping[str, Any], *, twins: bool) -> dict[str, str]:
    """Variant -> repository, for the variants that have a `publish` section; no two of them may share one."""
    found: dict[str, str] = {}
    for name, section in sections.items():
        if section is None:
            continue
        repo = repository_of(section.repo, name if twins else None)
        if repo in found.values():
            raise RecipeError(
                f"two variants would publish to {repo}",
                where=f"variants.{name}.publish.repo",
                expected="one repository for each variant",
                fix="write {variant} into publish.repo",
            )
        found[name] = repo
    return found
