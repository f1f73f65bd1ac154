"""The section that says who judges. Descriptions are the documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inspo_hub.recipe.sections import MODEL_ID, Section


class EndpointSection(Section):
    """A chat model behind an OpenAI-compatible address, or an inference provider of the Hub."""

    model: str = Field(min_length=1, description="Name of the judge, as its server knows it; best a dated snapshot.")
    base_url: str | None = Field(
        None, pattern=r"^https?://", description="The server, with or without /v1; null: a provider of the Hub."
    )
    provider: str | None = Field(None, description="Inference provider of the Hub; null: the Hub's router chooses one.")
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*$",
        description="Environment variable that holds the key; null: your Hub token for a provider, none for base_url.",
    )
    bill_to: str | None = Field(None, description="Organisation of the Hub that pays the provider; null: you.")
    logprobs: bool = Field(
        True, description="Ask for the probabilities of the labels; where the server gives none, verdicts are hard."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens of the judge's answer; null: 1 for a label, 4096 for arena_hard."
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature of the judge.")
    concurrency: int = Field(8, ge=1, description="Questions asked at a time.")
    timeout_s: float = Field(120.0, gt=0, description="Seconds to wait for one answer.")
    attempts: int = Field(
        6, ge=1, description="Tries of one question where the server is busy or away; its Retry-After is kept."
    )
    usd_per_million_input: float | None = Field(None, ge=0, description="Price of a million tokens that are asked.")
    usd_per_million_output: float | None = Field(None, ge=0, description="Price of a million tokens that are answered.")
    max_usd: float | None = Field(
        None, gt=0, description="Stop when the judge has cost so much, over all runs of this output; null: no limit."
    )


class JudgeModel(Section):
    """A judge that runs on this machine."""

    id: str = Field(min_length=1, description=MODEL_ID)
    revision: str | None = Field(None, description="Branch, tag or commit; null: `main`, pinned at start.")


class JudgeSection(Section):
    """Who decides between two answers: one of python, endpoint, model and reward_model."""

    python: str | None = Field(
        None,
        pattern=r"^(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*$",
        description="A Python function that scores one answer, `file.py:function` (the file relative to the recipe) or "
        "`package.module:function`; of two answers the one that scores higher wins.",
    )
    endpoint: EndpointSection | None = Field(
        None, description="A chat model that is shown both answers; needs the network, and may cost money."
    )
    model: JudgeModel | None = Field(
        None, description="A causal language model, read by the probabilities of the labels A and B; generates nothing."
    )
    reward_model: JudgeModel | None = Field(
        None, description="A sequence classifier with one number; the preference is σ of the difference of rewards."
    )
    order: Literal["both", "seeded"] = Field(
        "both",
        description="Whether a judge of pairs sees each pair in both orders, or once in an order that the prompt "
        "decides (half the cost, and the judge's liking for a place stays in every row).",
    )
    verdict: Literal["label", "arena_hard"] = Field(
        "label",
        description="How an endpoint answers: with the letter A or B, or with a text that ends in [[A>>B]] … [[B>>A]].",
    )
    template: str | None = Field(
        None,
        description="Text file with the question to a judge of pairs: {prompt}, {first} and {second}, each once; "
        "null: the built-in one.",
    )
    max_failed: float = Field(
        0.02, ge=0, lt=1, description="Share of rows without a verdict above which a comparison is refused."
    )
