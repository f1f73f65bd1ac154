"""The section of a recipe that says how rounds train online. A field's description is its documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inspo_hub.recipe.judges import JudgeSection
from inspo_hub.recipe.running import PromptSource
from inspo_hub.recipe.sections import Section


class IterateSection(Section):
    """Rounds of sample, judge, pair, train. Each round is trained on pairs of its own, in place of `data.train`."""

    prompts: PromptSource = Field(
        description="The prompts that every round answers; a list of messages may hold earlier turns."
    )
    judge: JudgeSection | None = Field(
        None,
        description="Who judges the answers; a judge of pairs sees every two of a prompt's. null: the evaluation's.",
    )
    rounds: int = Field(3, ge=1, description="Rounds in all; a higher number later goes on after the last one.")
    limit: int | None = Field(
        None,
        ge=1,
        description="Prompts of one round; each round takes the next ones, and the first again after the last. "
        "null: all of them in every round.",
    )
    samples_per_prompt: int = Field(
        4, ge=2, description="Answers drawn for each prompt; the best and the worst of them become a pair."
    )
    max_new_tokens: int = Field(512, ge=1, description="Tokens of an answer at most; an unfinished one makes no pair.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: probability mass kept, in (0, 1].")
    reference: Literal["previous", "initial"] = Field(
        "previous",
        description="previous: each round is held to the policy that it starts from; initial: every round to the "
        "reference of the recipe, by default the model before the first round.",
    )
    dataset: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}$",
        description="Data set repository `owner/name` that every round's pairs go to, each round a configuration and "
        "trained on as the commit that holds it; variants have `-<variant>` behind the name. null: pairs stay here.",
    )
    private: bool | None = Field(None, description="Whether a new data set repository is private; null: it is.")
