"""Keys that transformers' TrainingArguments gave to all of these formats, those dropped since included."""

from __future__ import annotations

from typing import Any, get_args

from inspo_hub.migrating.draft import Draft, number, truth, whole
from inspo_hub.recipe.running import Optimizer

_OPTIMIZERS = {
    "adamw_hf": "adamw_torch",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "adamw_apex_fused": "adamw_torch_fused",
} | {name: name for name in get_args(Optimizer)}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
_TRACKERS = ("none", "trackio", "wandb", "tensorboard")
_NOT_NEEDED_BECAUSE = {
    "one limit for the longest path of a pair, data.max_length, and a policy, data.on_overlong": (
        "max_prompt_length max_completion_length max_target_length"
    ),
    "numbers are chosen by the device (model.compute_dtype), weights stay float32": "bf16 fp16 tf32",
    "packing brings its own attention (model.attention)": (
        "attn_implementation use_flash_attention_2 flash_attention xformers_attention sdp_attention"
    ),
    "given on the command line, or by publish": "output_dir overwrite_output_dir hub_strategy hub_token",
    "not needed here: pairs are packed without padding, the reference is cached by content": (
        "gradient_checkpointing_kwargs remove_unused_columns dataloader_num_workers dataloader_pin_memory "
        "preprocessing_num_workers dataset_num_proc group_by_length precompute_ref_log_probs precompute_ref_batch_size "
        "padding_free sample_packing pad_to_sequence_len use_liger_kernel use_liger_loss use_logits_to_keep "
        "padding_value label_pad_token_id dataset_prepared_path dataset_processes"
    ),
    "the machine's business: `inspo-hub plan` chooses, `accelerate launch` does it": (
        "deepspeed fsdp fsdp_config fsdp_version local_rank ddp_timeout ddp_find_unused_parameters"
    ),
    "a run always trains, logs, saves and evaluates what the recipe has": (
        "do_train do_eval do_predict evaluation_strategy eval_strategy save_strategy logging_strategy "
        "logging_first_step log_level log_level_replica logging_dir disable_tqdm save_safetensors push_to_hub "
        "save_only_model load_best_model_at_end trainer_type per_device_eval_batch_size eval_batch_size"
    ),
    "set in wandb's own environment variables": (
        "wandb_entity wandb_project wandb_name wandb_watch wandb_run_id wandb_log_model"
    ),
}
"""Why -> keys that need no counterpart."""
NOT_NEEDED = {key: why for why, keys in _NOT_NEEDED_BECAUSE.items() for key in keys.split()}


def common(draft: Draft, *, processes: int) -> None:
    """Optimisation, logging, saving, publishing."""
    for key, ours, convert in (
        ("learning_rate", "train.lr", number),
        ("max_steps", "train.max_steps", _unless_minus_one),
        ("weight_decay", "train.weight_decay", number),
        ("adam_beta1", "train.adam_beta1", number),
        ("adam_beta2", "train.adam_beta2", number),
        ("adam_epsilon", "train.adam_epsilon", number),
        ("max_grad_norm", "train.max_grad_norm", number),
        ("logging_steps", "train.log_every", whole),
        ("eval_steps", "train.eval_every", whole),
        ("save_steps", "train.save_every", _in_reach),
        ("save_total_limit", "train.keep_checkpoints", whole),
        ("gradient_checkpointing", "train.activation_checkpointing", truth),
        ("torch_compile", "train.compile", truth),
        ("seed", "seed", int),
        ("trust_remote_code", "model.trust_remote_code", truth),
    ):
        draft.rename(key, ours, convert)
    _pairs_per_step(draft, processes)
    _warm_up(draft)
    _tracker(draft)
    _publish(draft)
    for key, why in NOT_NEEDED.items():
        draft.lose(key, why)


def epochs(draft: Draft, key: str) -> None:
    draft.rename(key, "train.epochs", number)


def optimizer(draft: Draft, key: str) -> None:
    draft.rename(key, "train.optimizer", lambda name: _one_of(_OPTIMIZERS, name, "optimizer"))


def schedule(draft: Draft, key: str) -> None:
    draft.rename(key, "train.lr_schedule", lambda name: _one_of(_SCHEDULES, name, "schedule"))


def _one_of(known: dict[str, str], name: Any, what: str) -> str:
    if str(name) not in known:
        raise ValueError(f"there is no {what} {name!r} here; the default is taken")
    return known[str(name)]


def _unless_minus_one(value: Any) -> int | None:
    return None if int(value) < 0 else whole(value)


def _in_reach(value: Any) -> int:
    steps = whole(value)
    if steps >= 100_000:
        raise ValueError("so many steps never come, so nothing would be saved; about ten checkpoints are")
    return steps


def _pairs_per_step(draft: Draft, processes: int) -> None:
    """The batch over all processes, which here is one number of the recipe."""
    keys = ("per_device_train_batch_size", "micro_batch_size", "gradient_accumulation_steps")
    per_device = draft.take("per_device_train_batch_size") or draft.take("micro_batch_size") or 1
    draft.take("micro_batch_size")
    accumulated = draft.take("gradient_accumulation_steps") or 1
    pairs = whole(per_device) * whole(accumulated) * processes
    draft.put("train.pairs_per_step", pairs, *keys)
    draft.notes.append(
        f"train.pairs_per_step is {per_device} a device × {accumulated} accumulated × {processes} "
        f"process{'es' if processes > 1 else ''}: the number of processes is in no such file (--processes)"
    )


def _warm_up(draft: Draft) -> None:
    draft.rename("warmup_ratio", "train.warmup_fraction", number)
    steps, most = draft.take("warmup_steps"), draft.recipe.get("train", {}).get("max_steps")
    if not steps:
        return
    if 0 < float(steps) < 1:  # transformers 5 takes a share there
        draft.put("train.warmup_fraction", float(steps), "warmup_steps")
    elif most:
        draft.put("train.warmup_fraction", min(1.0, float(steps) / most), "warmup_steps")
    else:
        draft.lose(
            "warmup_steps", "the warm-up is a share of all steps, train.warmup_fraction, and these are not known"
        )


def _tracker(draft: Draft) -> None:
    asked = draft.take("report_to")
    names = [str(name) for name in (asked if isinstance(asked, list) else [asked] if asked else [])]
    known = [name for name in names if name in _TRACKERS]
    if known:
        draft.put("train.report_to", known[0], "report_to")
    if names and names != known[:1]:
        draft.notes.append(f"report_to: of {', '.join(names)} one of {', '.join(_TRACKERS)} can be had")
        if not known:
            draft.lose("report_to", f"no tracker of {', '.join(_TRACKERS)}")


def _publish(draft: Draft) -> None:
    """`hub_model_id` with an owner becomes a repository; `push_to_hub: false` keeps it at home."""
    pushes = draft.source.get("push_to_hub")
    repo, private = draft.take("hub_model_id"), draft.take("hub_private_repo")
    if repo is None:
        return
    if pushes is not None and not truth(pushes):
        draft.lose("hub_model_id", "push_to_hub is false; add publish.repo to publish")
    elif "/" not in str(repo):
        draft.lose("hub_model_id", "publish.repo needs the owner too: OWNER/NAME")
    else:
        draft.put("publish.repo", str(repo), "hub_model_id")
        if private is not None:
            draft.put("publish.private", truth(private), "hub_private_repo")
