"""The sections that say what goes in: model, data, alternative, reference. Descriptions are the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from inspo_hub.recipe.paths import is_path
from inspo_hub.views import AlternativeGradient

ColumnRole = Literal["prompt", "chosen", "rejected", "system", "tools", "chat_template_kwargs"]
MODEL_ID = "Hub id `owner/name`, or a local folder relative to the file that names it."


class Section(BaseModel):
    """A mapping of the recipe: unknown keys are errors, values are never converted, instances never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """The base model that is trained, its tokenizer, and how it computes."""

    id: str = Field(min_length=1, description=MODEL_ID)
    revision: str | None = Field(None, description="Branch, tag or commit of the model; null: `main`, pinned at start.")
    tokenizer: str | None = Field(None, description=f"{MODEL_ID} null: the model's own.")
    tokenizer_revision: str | None = Field(
        None, description="Branch, tag or commit of the tokenizer; null: the model's where they are one repository."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository ships.")
    chat_template: str | None = Field(
        None, description="File with a Jinja chat template, relative to the recipe; null: the tokenizer's own."
    )
    compute_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of forward and backward; weights and optimizer state stay float32. "
        "auto: bfloat16 on a GPU, float32 on a CPU.",
    )
    attention: Literal["auto", "tree", "flat"] = Field(
        "auto",
        description="Packing of a pair: tree shares prompt and alternative between paths, flat repeats them. "
        "auto: tree where the start-up check finds it equal, flat elsewhere.",
    )


class DataSource(Section):
    """One data set of preferences."""

    id: str = Field(
        min_length=1,
        description="Hub id `owner/name`, or a local folder or jsonl, json, csv, parquet or arrow file, "
        "relative to the file that names it.",
    )
    config: str | None = Field(None, description="Configuration (subset) of the data set; null: its default.")
    revision: str | None = Field(None, description="Branch, tag or commit; null: `main`, pinned at start.")
    split: str = Field("train", min_length=1, description="Split to read.")
    weight: float | None = Field(
        None,
        gt=0,
        description="Share of the mixture, relative to the other weights of the list; null: every row once.",
    )
    columns: dict[ColumnRole, str | None] = Field(
        {},
        description="Our name -> the data set's own, for columns that are named otherwise; null leaves one unread. "
        "Ours: prompt, chosen, rejected, system, tools, chat_template_kwargs.",
    )
    limit: int | None = Field(None, ge=1, description="Rows to take at most, the first of the split; null: all.")

    @property
    def shown_name(self) -> str:
        """What row ids and reports call it: the Hub id, or a local file's name, for its folder is nobody's business."""
        return Path(self.id).name if is_path(self.id) else self.id


class HeldoutFraction(Section):
    """Held-out pairs split off the training data."""

    fraction: float = Field(gt=0, lt=1, description="Share of the prompts in (0, 1), chosen by a seeded prompt hash.")


def _heldout_kind(value: object) -> str:
    return "mapping" if isinstance(value, dict | HeldoutFraction) else "list"


Sources = tuple[DataSource, ...]
Heldout = Annotated[
    Annotated[Sources, Tag("list")] | Annotated[HeldoutFraction, Tag("mapping")], Discriminator(_heldout_kind)
]


class DataSection(Section):
    """The preference pairs, and what happens to those that do not fit."""

    train: Sources = Field(description="Data sets to train on, mixed in one seeded order.")
    heldout: Heldout | None = Field(
        None, description="Pairs for evaluation: data sets, or {fraction: f} split off the training data; null: none."
    )
    text_format: Literal["auto", "chat", "raw"] = Field(
        "auto",
        description="Rows of plain texts: chat renders prompt and response as messages, raw joins them as they stand. "
        "auto: chat where the tokenizer has a chat template.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Arguments for the chat template, for all rows, such as {enable_thinking: false}."
    )
    max_length: int = Field(
        2048, ge=8, description="Tokens of the longest path of a pair: prompt, alternative, separator and response."
    )
    on_overlong: Literal["truncate", "drop", "error"] = Field(
        "truncate",
        description="A pair longer than max_length: truncate cuts the alternative's tail, then the prompt's oldest "
        "tokens, then the response's tail; drop leaves the pair out; error stops.",
    )
    on_invalid: Literal["drop", "error"] = Field(
        "drop", description="A pair with an empty or twice the same response: drop leaves it out, error stops."
    )


class AlternativeSection(Section):
    """How the alternative response stands in front of the response that is scored."""

    max_tokens: int | None = Field(
        None, ge=1, description="Tokens that are kept of an alternative, its start and its end token; null: all."
    )
    format: Literal["turn", "concat"] = Field(
        "turn",
        description="turn: the alternative is an assistant turn, followed by a user turn and the response; "
        "concat: the response follows the alternative's end token at once.",
    )
    turn_text: str = Field(
        "Please give another answer to my previous message.",
        min_length=1,
        description="Text of the user turn between alternative and response, for format: turn.",
    )
    gradient: AlternativeGradient = Field(
        "full",
        description="full: exact gradients; stopped: prompt, alternative and separator are read without gradient, "
        "for about 0.63 of a symmetric step and under half its activations. An experiment: one run in eight collapsed.",
    )


class ReferenceSection(Section):
    """The reference policy of the objectives that use one."""

    source: Literal["initial", "model"] = Field(
        "initial", description="initial: the policy before training; model: another model, named by id."
    )
    id: str | None = Field(None, description=f"{MODEL_ID} Only for source: model.")
    revision: str | None = Field(None, description="Branch, tag or commit of id; null: `main`, pinned at start.")
    context: Literal["plain", "conditioned"] = Field(
        "plain",
        description="plain: the reference scores a response given the prompt alone, as the paper writes it; "
        "conditioned: given the same alternative as the policy.",
    )
