"""TRL's scripts, and what was built on them: the alignment-handbook's mixers and mixtures, SimPO's configurations."""

from __future__ import annotations

from typing import Any

from inspo_hub.migrating.draft import Draft, number, truth, whole
from inspo_hub.migrating.shared import common, epochs, optimizer, schedule

LOSSES = {
    "sigmoid": "dpo",
    "sigmoid_norm": "sigmoid_norm",
    "hinge": "hinge",
    "ipo": "ipo",
    "exo_pair": "exo_pair",
    "nca_pair": "nca_pair",
    "robust": "robust",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo_hard",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "discopop": "discopop",
    "aot": "aot",
    "simpo": "simpo",
    "orpo": "orpo",
    "cpo": "cpo",
}
"""TRL's name of a loss -> our objective."""
SMOOTHED = ("dpo", "robust", "cpo", "sigmoid_norm", "exo_pair", "aot")
_DTYPES = {"bfloat16": "bfloat16", "float32": "float32", "auto": "auto"}
_LOSS_ONLY = {
    "ld_alpha": "length desensitisation is not an objective here",
    "f_divergence_type": "only the reverse KL is an objective here",
    "f_alpha_divergence_coef": "only the reverse KL is an objective here",
    "use_weighting": "weighted pairs (WPO) are not an objective here",
    "reference_free": "take an objective without a reference: simpo, orpo or cpo",
    "sync_ref_model": "the reference stays what it was",
    "ref_model_mixup_alpha": "the reference stays what it was",
    "ref_model_sync_steps": "the reference stays what it was",
    "truncation_mode": "data.on_overlong cuts the alternative, then the prompt's oldest tokens, then the response",
    "disable_dropout": "dropout is always off",
    "generate_during_eval": "evaluate: answers to prompts of their own, judged",
    "lora_modules_to_save": "an adapter trains no other layers here",
    "lora_task_type": "always causal language modelling",
    "load_in_8bit": "adapter.quantize is null or nf4",
    "bnb_4bit_quant_type": "adapter.quantize: nf4 is the type",
    "use_bnb_nested_quant": "decided by the package",
}


def is_trl(source: dict[str, Any]) -> bool:
    return "model_name_or_path" in source


def migrate_trl(draft: Draft, *, processes: int) -> None:
    """Everything that TRL's ModelConfig, ScriptArguments, DPO-, CPO- and ORPOConfig say."""
    _model(draft)
    _data(draft)
    _objective(draft)
    _adapter(draft)
    common(draft, processes=processes)
    epochs(draft, "num_train_epochs")
    optimizer(draft, "optim")
    schedule(draft, "lr_scheduler_type")
    draft.rename("max_length", "data.max_length", whole)
    for key, why in _LOSS_ONLY.items():
        draft.lose(key, why)


def _model(draft: Draft) -> None:
    draft.rename("model_name_or_path", "model.id", str)
    draft.rename("model_revision", "model.revision", lambda name: None if name == "main" else str(name))
    draft.rename("tokenizer_name_or_path", "model.tokenizer", str)
    for key in ("torch_dtype", "dtype"):
        draft.rename(key, "model.compute_dtype", _dtype)
    draft.rename("ref_model_name_or_path", "reference.id", str)
    if "id" in draft.recipe.get("reference", {}):
        draft.put("reference.source", "model", "ref_model_name_or_path")
    draft.lose("chat_template", "a template is a file here: model.chat_template")
    draft.rename("run_name", "name", str)


def _dtype(name: Any) -> str:
    if str(name) not in _DTYPES:
        raise ValueError(f"{name} is no number format to compute in here; auto is taken")
    return _DTYPES[str(name)]


# --- data


def _data(draft: Draft) -> None:
    train: list[dict[str, Any]] = []
    heldout: list[dict[str, Any]] = []
    for source in (_named(draft), _mixer(draft), _mixture(draft), _listed(draft)):
        train += source[0]
        heldout += source[1]
    keys = ("dataset_name", "dataset_mixer", "dataset_mixture", "datasets")
    draft.put("data.train", train, *keys)
    if heldout:
        draft.put("data.heldout", heldout)


Sources = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""(Training, held-out) sources."""


def _named(draft: Draft) -> Sources:
    """`dataset_name`, `dataset_config`, `dataset_train_split`, `dataset_test_split`."""
    name, config = draft.take("dataset_name"), draft.take("dataset_config")
    train, test = draft.take("dataset_train_split") or "train", draft.take("dataset_test_split")
    if name is None:
        return [], []
    draft.carried |= {key: "data.train" for key in ("dataset_config", "dataset_train_split") if draft.source.get(key)}
    base = {"id": str(name)} | ({"config": str(config)} if config else {})
    evaluates = str(draft.source.get("eval_strategy") or draft.source.get("evaluation_strategy") or "no") != "no"
    heldout = [{**base, "split": str(test or "test")}] if test or evaluates else []
    if test:
        draft.carried["dataset_test_split"] = "data.heldout"
    return [{**base, "split": str(train)}], heldout


def _mixer(draft: Draft) -> Sources:
    """The handbook's `dataset_mixer: {id: fraction}` with `dataset_splits`."""
    mixer, splits = draft.take("dataset_mixer"), draft.take("dataset_splits") or ["train", "test"]
    configs = draft.take("dataset_configs") or []
    if not isinstance(mixer, dict):
        return [], []
    found: Sources = ([], [])
    for index, (name, fraction) in enumerate(mixer.items()):
        _fraction(draft, name, fraction)
        config = {"config": str(configs[index])} if index < len(configs) else {}
        for split in splits:
            found[1 if "test" in str(split) else 0].append({"id": name, **config, "split": str(split)})
    draft.carried |= {key: "data" for key in ("dataset_splits", "dataset_configs") if draft.source.get(key)}
    return found


def _mixture(draft: Draft) -> Sources:
    """The handbook's later `dataset_mixture: {datasets: [...], test_split_size: 0.05}`."""
    mixture = draft.take("dataset_mixture")
    if not isinstance(mixture, dict):
        return [], []
    train = [_entry(draft, row, "dataset_mixture") for row in mixture.get("datasets") or []]
    share = mixture.get("test_split_size")
    if share:
        draft.put("data.heldout", {"fraction": number(share)}, "dataset_mixture")
    return train, []


def _listed(draft: Draft) -> Sources:
    """TRL's own list: `datasets: [{path, name, split, fraction}]`."""
    rows = draft.take("datasets")
    return ([_entry(draft, row, "datasets") for row in rows], []) if isinstance(rows, list) else ([], [])


def _entry(draft: Draft, row: dict[str, Any], key: str) -> dict[str, Any]:
    name = str(row.get("path") or row.get("id"))
    _fraction(draft, name, row.get("fraction", row.get("weight")))
    config = row.get("name") or row.get("config")
    entry = {"id": name} | ({"config": str(config)} if config else {}) | {"split": str(row.get("split") or "train")}
    for other in sorted(set(row) - {"path", "id", "name", "config", "split", "fraction", "weight", "columns"}):
        draft.notes.append(f"{key}, {name}: {other} was not carried over")
    return entry


def _fraction(draft: Draft, name: str, fraction: Any) -> None:
    if fraction is not None and number(fraction) != 1.0:
        draft.notes.append(
            f"{name}: a share of {fraction} of its rows was taken; write its number as data.train.*.limit"
        )


# --- objective and adapter


def _objective(draft: Draft) -> None:
    trainer = str(draft.source.get("trainer_type") or "").lower()
    beta, gamma_ratio = draft.take("beta"), draft.take("gamma_beta_ratio")
    name = "simpo" if gamma_ratio is not None or trainer == "simpo" else _loss(draft)
    draft.put("objective.name", name, "loss_type")
    if beta is not None:
        draft.put("objective.odds_weight" if name == "orpo" else "objective.beta", number(beta), "beta")
    if gamma_ratio is not None:
        # SimPO's code scales the margin target by beta, ours is the paper's own gamma.
        draft.put(
            "objective.gamma",
            round(number(gamma_ratio) * number(2.0 if beta is None else beta), 10),
            "gamma_beta_ratio",
        )
    draft.rename("simpo_gamma", "objective.gamma", number)
    smoothing = draft.take("label_smoothing") or draft.take("label_smoothing_factor")
    if smoothing and name in SMOOTHED:
        draft.put("objective.label_smoothing", number(smoothing), "label_smoothing", "label_smoothing_factor")
    elif smoothing:
        draft.lose("label_smoothing", f"{name} has none")
    draft.rename("discopop_tau", "objective.tau", number)
    for key in ("rpo_alpha", "cpo_alpha", "sft_weight"):
        draft.rename(key, "objective.nll_weight", number)
    # What the file trained, before anything is conditioned.
    draft.put("conditioning", "none")


def _loss(draft: Draft) -> str:
    asked, weights = draft.take("loss_type") or "sigmoid", draft.take("loss_weights")
    names = [str(name) for name in (asked if isinstance(asked, list) else [asked])]
    shares = [number(weight) for weight in weights] if weights else [1.0] * len(names)
    preference = [(name, share) for name, share in zip(names, shares, strict=False) if name != "sft"]
    if not preference or preference[0][0] not in LOSSES:
        draft.notes.append(f"loss_type {asked!r} is not an objective here: dpo was written, look at docs/objectives.md")
        return "dpo"
    if len(preference) > 1:
        draft.notes.append(f"of the losses {', '.join(names)} only {preference[0][0]} was carried over")
    if "sft" in names:
        share = shares[names.index("sft")] / preference[0][1]
        draft.put("objective.nll_weight", share, "loss_weights")
    return LOSSES[preference[0][0]]


def _adapter(draft: Draft) -> None:
    uses = truth(draft.take("use_peft") or False)
    keys = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora", "use_dora", "load_in_4bit")
    if not uses:
        for key in keys:
            draft.lose(key, "use_peft is not set, so it had no effect")
        return
    draft.put("adapter", {}, "use_peft")
    draft.rename("lora_r", "adapter.r", whole)
    draft.rename("lora_alpha", "adapter.alpha", number)
    for key in ("use_rslora", "use_dora"):
        draft.rename(key, f"adapter.{key}", truth)
    targets(draft)
    dropout_and_bits(draft)


def targets(draft: Draft) -> None:
    asked = draft.take("lora_target_modules")
    if asked is not None:
        everything = asked in ("all-linear", ["all-linear"])
        names = asked if isinstance(asked, list) else [asked]
        draft.put("adapter.target_modules", "auto" if everything else names, "lora_target_modules")


def dropout_and_bits(draft: Draft) -> None:
    dropout = draft.take("lora_dropout")
    if dropout and number(dropout) > 0:
        draft.lose("lora_dropout", "an adapter has no dropout here: with noise log-ratios do not start at 0")
    if truth(draft.take("load_in_4bit") or False):
        draft.put("adapter.quantize", "nf4", "load_in_4bit")
