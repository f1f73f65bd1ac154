"""What other preference trainers call a recipe's keys: named in the error about an unknown key."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

KNOWN_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "adam_eps": "train.adam_epsilon",
        "attn_implementation": "model.attention",
        "base_model": "model.id",
        "bf16": "model.compute_dtype",
        "chat_template_path": "model.chat_template",
        "dataset_config": "data.train.*.config",
        "dataset_mixer": "data.train",
        "dataset_mixture": "data.train",
        "dataset_name": "data.train.*.id",
        "dataset_split": "data.train.*.split",
        "dataset_train_split": "data.train.*.split",
        "datasets": "data.train",
        "dtype": "model.compute_dtype",
        "eval_dataset": "data.heldout",
        "eval_steps": "train.eval_every",
        "fp16": "model.compute_dtype",
        "gamma_beta_ratio": "objective.gamma",
        "gradient_accumulation_steps": "train.pairs_per_step",
        "gradient_checkpointing": "train.activation_checkpointing",
        "label_smoothing_factor": "objective.label_smoothing",
        "learning_rate": "train.lr",
        "logging_steps": "train.log_every",
        "loss_type": "objective.name",
        "lr_scheduler_type": "train.lr_schedule",
        "max_seq_length": "data.max_length",
        "model_name_or_path": "model.id",
        "model_revision": "model.revision",
        "num_epochs": "train.epochs",
        "num_train_epochs": "train.epochs",
        "optim": "train.optimizer",
        "path": "data.train.*.id",
        "per_device_train_batch_size": "train.pairs_per_step",
        "ref_model": "reference.id",
        "ref_model_name_or_path": "reference.id",
        "rpo_alpha": "objective.nll_weight",
        "run_name": "name",
        "save_steps": "train.save_every",
        "save_total_limit": "train.keep_checkpoints",
        "sequence_len": "data.max_length",
        "sft_weight": "objective.nll_weight",
        "simpo_gamma": "objective.gamma",
        "tokenizer_name_or_path": "model.tokenizer",
        "torch_compile": "train.compile",
        "torch_dtype": "model.compute_dtype",
        "val_set_size": "data.heldout",
        "warmup_ratio": "train.warmup_fraction",
        "warmup_steps": "train.warmup_fraction",
    }
)
