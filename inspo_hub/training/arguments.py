"""The recipe's `train:` section as transformers.TrainingArguments."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, TrainingArguments

from inspo_hub.errors import RecipeError

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

CHECKPOINTS_PER_RUN = 10
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def save_steps(save_every: int | None, total_steps: int) -> int:
    """Steps between checkpoints: the recipe's, or about ten in a run."""
    return save_every or max(1, total_steps // CHECKPOINTS_PER_RUN)


def training_arguments(
    recipe: Recipe, checkpoints: Path, *, total_steps: int, bf16: bool, on_gpu: bool, has_heldout: bool
) -> TrainingArguments:
    """Arguments of the Trainer; everything the project does itself (pushing, batching, rotation) is off.

    Args:
        checkpoints: folder of the checkpoints.
        total_steps: optimizer steps of the whole run.
        bf16: bfloat16 autocast around float32 weights.
        on_gpu: activation checkpointing defaults to on there.
        has_heldout: evaluate at step 0, every `eval_every` steps and at the end.
    """
    train = recipe.train
    recompute = on_gpu if train.activation_checkpointing is None else train.activation_checkpointing
    eval_steps = min(train.eval_every or total_steps, total_steps)
    return TrainingArguments(
        output_dir=str(checkpoints),
        seed=recipe.seed,
        data_seed=recipe.seed,
        learning_rate=train.lr,
        max_steps=total_steps,
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        lr_scheduler_type=_SCHEDULES[train.lr_schedule],
        warmup_steps=round(train.warmup_fraction * total_steps),
        optim=train.optimizer,
        weight_decay=train.weight_decay,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
        max_grad_norm=train.max_grad_norm or 0.0,
        bf16=bf16,
        use_cpu=not on_gpu,
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        report_to=train.report_to,
        run_name=f"{recipe.name}-{recipe.sha256()[:12]}",  # by which a tracker's run and a card find each other
        eval_strategy="steps" if has_heldout else "no",
        eval_steps=eval_steps if has_heldout else None,
        eval_on_start=has_heldout,
        save_strategy="steps",
        save_steps=save_steps(train.save_every, total_steps),
        save_total_limit=None,
        push_to_hub=False,
        remove_unused_columns=False,
        dataloader_num_workers=2 if on_gpu else 0,
        dataloader_pin_memory=False,
        disable_tqdm=True,  # the project shows progress itself
        **_recompute_argument(recompute, offload=train.activation_offload and on_gpu),
    )


def _recompute_argument(recompute: bool, *, offload: bool) -> dict[str, Any]:
    """Activation checkpointing under its name in this transformers (renamed from gradient_checkpointing in 5.2x).

    Raises:
        RecipeError: activations are to be kept on the host, and this transformers cannot.
    """
    if offload and not _can_offload():
        raise RecipeError(
            f"transformers {importlib.metadata.version('transformers')} keeps no activations in the host's memory",
            where="train.activation_offload",
            expected="a transformers whose activation_checkpointing_enable takes `offload`",
            fix="install a newer transformers, or delete the key and lower train.tokens_per_microbatch",
        )
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    if not recompute:
        return {name: False}
    kwargs = {"use_reentrant": False} | ({"offload": True} if offload else {})
    return {name: True, f"{name}_kwargs": kwargs}


def _can_offload() -> bool:
    enable = getattr(PreTrainedModel, "activation_checkpointing_enable", None)
    return enable is not None and "offload" in inspect.signature(enable).parameters
