"""The section of a recipe that says where results go. A field's description is its documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inspo_hub.recipe.sections import Section

_BRANCH = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"


class PublishSection(Section):
    """Publishing on the Hub: in the background, checked by hash, never in the way of training."""

    repo: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9{][\w.{}-]{0,95}$",
        description="Model repository `owner/name`. Variants publish to `owner/name-<variant>`, or to where "
        "`{variant}` in the name puts them.",
    )
    strategy: Literal["end", "every_save", "checkpoint"] = Field(
        "every_save",
        description="end: the finished model; every_save: also the weights of every checkpoint, each in place of the "
        "one before; checkpoint: also all that `--resume hub` needs, on a branch of its own.",
    )
    private: bool | None = Field(
        None,
        description="null: a new repository is private, one that exists stays as it is; true: it must be private; "
        "false: a new one is public.",
    )
    create_pr: bool = Field(
        False, description="Open a pull request instead of writing to the repository, which must exist."
    )
    branch: str = Field("main", pattern=_BRANCH, description="Branch of the weights and the card.")
    checkpoints_branch: str = Field(
        "checkpoints", pattern=_BRANCH, description="Branch of the resumable state, for strategy: checkpoint."
    )
    wait_minutes: float = Field(
        10.0, ge=0, description="Minutes that the end of a run waits for the Hub; `inspo-hub publish` does the rest."
    )
