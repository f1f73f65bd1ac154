"""The sections that say what is done: train and evaluate. Descriptions are the documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inspo_hub.recipe.judges import JudgeSection
from inspo_hub.recipe.sections import Section

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "lion_32bit",
    "adafactor",
    "rmsprop",
    "sgd",
]


class TrainSection(Section):
    """The optimisation: a step is a fixed number of pairs, whatever the hardware."""

    lr: float = Field(gt=0, description="Peak learning rate per step.")
    epochs: float = Field(1.0, gt=0, description="Passes over the training pairs; a fraction is a part of a pass.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps at most; null: as many as epochs needs.")
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens that all steps may lay out together; training ends before the step that would pass it, and "
        "the schedule with it. The same for twins is an equal budget, where a step of one takes more. null: no limit.",
    )
    pairs_per_step: int = Field(128, ge=1, description="Pairs of one optimizer step, over all processes together.")
    tokens_per_microbatch: int = Field(
        8192, ge=1, description="Tokens of one packed row that goes through the model at a time, per process."
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate after the warm-up: down to 0 (cosine, linear) or constant."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, le=1, description="Share of the steps, in [0, 1], in which the learning rate rises linearly from 0."
    )
    optimizer: Optimizer = Field(
        "adamw_torch", description="Optimizer, by the name transformers gives it; the 8-bit ones need bitsandbytes."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay per unit of learning rate.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of Adam's mean of gradients, in [0, 1).")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="Decay of Adam's mean of squared gradients, in [0, 1).")
    adam_epsilon: float = Field(1e-8, gt=0, description="Added to Adam's denominator.")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="Gradients are scaled down to this global L2 norm; null: never."
    )
    log_every: int = Field(10, ge=1, description="Steps between two logged lines; metrics are sums over that interval.")
    eval_every: int | None = Field(
        None,
        ge=1,
        description="Steps between two evaluations on the held-out pairs; null: before the first and after the last.",
    )
    save_every: int | None = Field(None, ge=1, description="Steps between two checkpoints; null: about ten in a run.")
    keep_checkpoints: int = Field(2, ge=1, description="Checkpoints kept on disk, the newest ones.")
    activation_checkpointing: bool | None = Field(
        None,
        description="Recompute activations in the backward pass: less memory, about a third more time. "
        "null: on for a GPU, off for a CPU.",
    )
    activation_offload: bool = Field(
        False,
        description="Keep recomputed layers' inputs in the host's memory: frees tokens x hidden x layers of a GPU's, "
        "and each layer waits for two copies. No effect on a CPU.",
    )
    compile: bool = Field(
        False,
        description="Compile the decoder layers with torch.compile: one graph serves all of them and every packed row. "
        "The first steps take longer, and a C++ compiler must be installed.",
    )
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = Field(
        "none", description="Tracker that gets the metrics; metrics.jsonl is always written."
    )


class PromptSource(Section):
    """A set of prompts to answer."""

    id: str = Field(
        min_length=1,
        description="Hub id `owner/name`, a local folder or data file relative to the recipe, or a benchmark: "
        "alpaca_eval, arena_hard (v2.0), arena_hard_v0.1.",
    )
    config: str | None = Field(None, description="Configuration (subset) of the data set; null: its default.")
    revision: str | None = Field(None, description="Branch, tag or commit; null: `main`, pinned at start.")
    split: str = Field("train", min_length=1, description="Split to read.")
    column: str = Field("prompt", min_length=1, description="Column of the prompt, a text or a list of messages.")


class PreferencesSection(Section):
    """What the trained policy prefers on the held-out pairs, plain and given alternatives, against its base."""

    novel: tuple[Literal["own", "other_prompt", "truncated", "empty", "shuffled"], ...] = Field(
        ("own", "other_prompt", "truncated", "empty", "shuffled"),
        description="Alternatives that training did not show, measured beside the plain scores and those of training: "
        "the model's own sample, a response to another prompt, the first half of the other response, none, "
        "the other response in random order.",
    )
    limit: int | None = Field(512, ge=1, description="Held-out pairs at most, the first ones; null: all.")
    max_new_tokens: int = Field(256, ge=1, description="Tokens of the model's own sample at most.")


class LatencySection(Section):
    """Time and memory of answering, the trained policy beside its base."""

    prompt_tokens: int = Field(256, ge=1, description="Tokens of a prompt.")
    new_tokens: int = Field(64, ge=2, description="Tokens of an answer.")
    batch_size: int = Field(1, ge=1, description="Prompts answered at a time.")
    rounds: int = Field(20, ge=6, description="Rounds, each of the base and the policy in turn.")


class EvaluateSection(Section):
    """Answers of the trained policy and the base to the same prompts, judged pairwise at the end of the run."""

    prompts: PromptSource = Field(description="The prompts that are answered.")
    judge: JudgeSection = Field(description="Who decides between two answers.")
    against: Literal["auto", "base", "baseline", "both"] = Field(
        "auto",
        description="Whose answers the variants compete with: the base's, those that a benchmark publishes, or both; "
        "auto: the benchmark's where there is one. Variants are compared with each other in any case.",
    )
    max_new_tokens: int = Field(512, ge=1, description="Tokens of an answer at most.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 takes the most probable token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: probability mass kept, in (0, 1].")
    samples_per_prompt: int = Field(1, ge=1, description="Answers drawn for each prompt.")
    limit: int | None = Field(None, ge=1, description="Prompts to answer at most, the first ones; null: all.")
    batch_size: int = Field(128, ge=1, description="Answers generated at a time; they do not depend on it.")
    bootstrap: int = Field(1000, ge=1, description="Resamplings of the prompts behind each confidence interval.")
    preferences: PreferencesSection | None = Field(
        None, description="Measure what is preferred on the held-out pairs, {} for all contexts; null: do not."
    )
    latency: LatencySection | None = Field(
        None, description="Measure the time of answering beside the base's, {} for one prompt at a time; null: do not."
    )
