"""axolotl's configurations with `rl: dpo | ipo | orpo | simpo`."""

from __future__ import annotations

from typing import Any

from inspo_hub.migrating.draft import Draft, number, truth, whole
from inspo_hub.migrating.shared import common, epochs, optimizer, schedule
from inspo_hub.migrating.trl import dropout_and_bits, targets

OBJECTIVES = {"dpo": "dpo", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo"}
_COLUMNS: dict[str, dict[str, str | None]] = {
    "intel": {"prompt": "question"},
    "icr": {"prompt": "input"},
    "argilla": {"prompt": "instruction", "chosen": "chosen_response", "rejected": "rejected_response"},
    "argilla_chat": {},
    "prompt_pairs": {},
    "ultra": {},
    "default": {},
}
"""Last part of a data set's `type` -> our columns where they are named otherwise."""
_FIELDS = {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected", "field_system": "system"}
_NOT_CARRIED = {
    "special_tokens": "the tokenizer's own are used; change them there",
    "tokens": "the tokenizer's own are used; change them there",
    "chat_template": "the tokenizer's own is used; another one is a file here: model.chat_template",
    "load_in_8bit": "adapter.quantize is null or nf4",
    "strict": "a recipe is always strict",
    "is_llama_derived_model": "read from the model",
    "model_type": "read from the model",
    "tokenizer_type": "read from the model",
    "evals_per_epoch": "steps between two evaluations: train.eval_every",
    "saves_per_epoch": "steps between two checkpoints: train.save_every",
    "lora_modules_to_save": "an adapter trains no other layers here",
    "lora_fan_in_fan_out": "read from the model",
    "train_on_inputs": "only the tokens of a response are scored",
    "dpo_use_weighting": "weighted pairs (WPO) are not an objective here",
    "plugins": "a recipe loads no plugins",
    "remove_unused_columns": "columns are named in data.train.*.columns",
}


def is_axolotl(source: dict[str, Any]) -> bool:
    return "base_model" in source


def migrate_axolotl(draft: Draft, *, processes: int) -> None:
    """Model, data sets with their prompt strategies, objective, adapter, optimisation."""
    draft.rename("base_model", "model.id", str)
    draft.rename("revision_of_model", "model.revision", str)
    draft.rename("tokenizer_config", "model.tokenizer", str)
    rows = draft.take("datasets") or []
    draft.put("data.train", [_source(draft, row) for row in rows], "datasets")
    tests = draft.take("test_datasets") or []
    if tests:
        draft.put("data.heldout", [_source(draft, row) for row in tests], "test_datasets")
    share = draft.take("val_set_size")
    if share and number(share) < 1:
        draft.put("data.heldout", {"fraction": number(share)}, "val_set_size")
    elif share:
        draft.lose("val_set_size", "a share of the prompts in (0, 1): data.heldout.fraction")
    draft.rename("sequence_len", "data.max_length", whole)
    _objective(draft)
    _adapter(draft)
    common(draft, processes=processes)
    epochs(draft, "num_epochs")
    optimizer(draft, "optimizer")
    schedule(draft, "lr_scheduler")
    for key, why in _NOT_CARRIED.items():
        draft.lose(key, why)


def _source(draft: Draft, row: dict[str, Any]) -> dict[str, Any]:
    """One data set. Its `type` says how prompts are made of columns; rows in a standard form need none of it."""
    kind = row.get("type")
    family = "user_defined" if isinstance(kind, dict) else str(kind or "default").rpartition(".")[2]
    columns = dict(_COLUMNS.get(family, {}))
    fields = {**row, **(kind if isinstance(kind, dict) else {})}
    columns |= {ours: str(fields[key]) for key, ours in _FIELDS.items() if fields.get(key) not in (None, ours)}
    if row.get("field_messages") and row["field_messages"] != "prompt":
        columns["prompt"] = str(row["field_messages"])
    if family not in _COLUMNS and family != "user_defined":
        draft.notes.append(f"{row.get('path')}: type {kind!r} is not known here; look at it with `inspo-hub preview`")
    entry: dict[str, Any] = {"id": str(row.get("path"))}
    entry |= {ours: str(row[key]) for key, ours in (("name", "config"), ("revision", "revision")) if row.get(key)}
    entry["split"] = str(row.get("split") or "train")
    if columns:
        entry["columns"] = columns
    return entry


def _objective(draft: Draft) -> None:
    rl = str(draft.take("rl") or "")
    if rl not in OBJECTIVES:
        draft.notes.append(f"rl: {rl!r} is no preference objective here: dpo was written, look at docs/objectives.md")
    name = OBJECTIVES.get(rl, "dpo")
    draft.put("objective.name", name, "rl")
    nested = draft.take("trl")
    beta = (nested or {}).get("beta") if isinstance(nested, dict) else None
    for key in ("rl_beta", "dpo_beta", "orpo_alpha"):
        value = draft.take(key)
        if value is not None:
            beta = value
            draft.carried[key] = "objective"
    if beta is not None:
        draft.put("objective.odds_weight" if name == "orpo" else "objective.beta", number(beta), "trl")
    if name == "simpo":
        draft.rename("simpo_gamma", "objective.gamma", number)
    draft.rename("dpo_label_smoothing", "objective.label_smoothing", number)
    for key in ("rpo_alpha", "cpo_alpha"):
        draft.rename(key, "objective.nll_weight", number)
    draft.put("conditioning", "none")


def _adapter(draft: Draft) -> None:
    kind = draft.take("adapter")
    if kind is None:
        for key in (
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "lora_target_linear",
            "load_in_4bit",
        ):
            draft.lose(key, "adapter is not set, so it had no effect")
        return
    draft.put("adapter", {}, "adapter")
    draft.rename("lora_r", "adapter.r", whole)
    draft.rename("lora_alpha", "adapter.alpha", number)
    draft.rename("lora_model_dir", "adapter.base_adapter", str)
    draft.rename("peft_use_dora", "adapter.use_dora", truth)
    draft.rename("peft_use_rslora", "adapter.use_rslora", truth)
    everything = truth(draft.take("lora_target_linear") or False)
    targets(draft)
    if everything:
        draft.put("adapter.target_modules", "auto", "lora_target_linear")
    dropout_and_bits(draft)
    if kind == "qlora":
        draft.put("adapter.quantize", "nf4", "adapter")
