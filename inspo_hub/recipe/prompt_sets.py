"""Benchmarks that `evaluate.prompts.id` may name: where their prompts and published answers lie on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspo_hub.recipe.running import PromptSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """A benchmark's repository. `revision` None: its main branch, pinned at start."""

    id: str
    revision: str | None
    files: tuple[str, ...]
    prompts: int
    """How many there are."""


_ARENA = "lmarena-ai/arena-hard-auto"

PROMPT_SETS: Mapping[str, PromptSet] = {
    "alpaca_eval": PromptSet(
        id="tatsu-lab/alpaca_eval",
        # The commit that the official code's users lock; the metric is defined by these bytes.
        revision="2edc6fad8be6b14ea7230aabfd08188da6b8b814",
        files=("alpaca_eval_gpt4_baseline.json", "instruction_difficulty.csv", "df_gamed.csv"),
        prompts=805,
    ),
    "arena_hard": PromptSet(
        id=_ARENA,
        revision=None,
        files=(
            "data/arena-hard-v2.0/question.jsonl",
            "data/arena-hard-v2.0/model_answer/o3-mini-2025-01-31.jsonl",
            "data/arena-hard-v2.0/model_answer/gemini-2.0-flash-001.jsonl",
        ),
        prompts=750,
    ),
    "arena_hard_v0.1": PromptSet(
        id=_ARENA,
        revision=None,
        files=("data/arena-hard-v0.1/question.jsonl", "data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl"),
        prompts=500,
    ),
}


def prompts_repository(prompts: PromptSource) -> tuple[str, str | None, tuple[str, ...] | None]:
    """(id, revision, files or None for all) of a recipe's prompts, whether it names a benchmark or a data set."""
    known = PROMPT_SETS.get(prompts.id)
    if known is None:
        return prompts.id, prompts.revision, None
    return known.id, prompts.revision or known.revision, known.files
