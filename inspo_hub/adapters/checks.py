"""What cannot be right about an adapter: kinds that change more than linear layers, tied weights, layers not there."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from inspo_hub.errors import RecipeError, ResolutionError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_HARMLESS = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out", "use_rslora", "use_dora",
    "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "lora_bias",
    "init_lora_weights", "loftq_config", "task_type", "peft_type", "auto_mapping", "peft_version",
    "base_model_name_or_path", "revision", "inference_mode",
}  # fmt: skip
"""Settings of a LoRA configuration under which a merge, a saved file and a packed forward all mean the same model."""
_INITIAL_ONLY = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to start an adapter that leave the base's own weights alone."""


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json as plain data."""
    path = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ResolutionError(
            f"no adapter configuration can be read: {error}",
            where=str(path),
            expected="adapter_config.json and adapter_model.safetensors, as peft writes them",
            fix="check adapter.base_adapter; a whole model belongs in model.id",
        ) from error
    return config


def check_config(config: dict[str, Any], *, where: str) -> None:
    """Refuses adapters that are no plain LoRA: prompt learning, other tuners, variants that rewrite the base.

    Raises:
        ResolutionError: it would not be the same model packed, merged or with the adapter switched off.
    """
    from peft import LoraConfig

    kind = str(config.get("peft_type"))
    if kind != "LORA":
        raise ResolutionError(
            f"the adapter is of kind {kind}",
            where=where,
            expected="LORA; prompts learned as tokens have no place in a packed pair",
            fix="merge it into its base first, and train on that",
        )
    usual = LoraConfig().to_dict()
    unusual = sorted(
        name for name, value in config.items() if name not in _HARMLESS and value and value != usual.get(name)
    )
    if config.get("init_lora_weights", True) not in _INITIAL_ONLY:
        unusual.append("init_lora_weights")
    if unusual:
        settings = ", ".join(f"{name}: {json.dumps(config[name])}" for name in unusual)
        raise ResolutionError(
            f"the adapter uses {settings}",
            where=where,
            expected="plain LoRA, DoRA or rsLoRA on modules of the model",
            fix="merge it into its base first, and train on that",
        )


def check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Every listed name must be the end of some layer's name: peft is content when one of them is.

    Raises:
        RecipeError: a name matches nothing.
    """
    names = [name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None]
    ends = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in names):
            continue
        near = difflib.get_close_matches(target, ends, n=1)
        raise RecipeError(
            f"{target!r} is the end of no layer's name",
            where="adapter.target_modules",
            expected=f"some of {', '.join(ends)}, or auto",
            fix=f"did you mean {near[0]}?" if near else "set adapter.target_modules: auto",
        )


def check_tied(model: PeftModel, *, where: str) -> None:
    """Refuses an adapter on embeddings that share their weight with the output layer: merged, it would change both.

    Raises:
        RecipeError: it is on such a layer.
    """
    base: Any = cast(Any, model).get_base_model()
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    if not base.config.get_text_config().tie_word_embeddings or head is None:
        return
    adapted = [name for name, module in (("input", embeddings), ("output", head)) if _is_adapted(module)]
    if adapted:
        raise RecipeError(
            f"an adapter on the {' and '.join(adapted)} embeddings, which are one weight in this model",
            where=where,
            expected="layers whose weight is theirs alone",
            fix="leave embeddings and output layer out of adapter.target_modules",
        )


def _is_adapted(module: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)


def check_fit(model: PeftModel, weights: Path, name: str = "default") -> None:
    """Every tensor of the file has found its place, and no adapter weight was left at its first value.

    Raises:
        ResolutionError: the file belongs to another model.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        stored = set(file.keys())
    expected = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    homeless, missing = sorted(stored - expected), sorted(expected - stored)
    if homeless or missing:
        lines = [f"{len(homeless)} tensors have no place in it ({homeless[0]})"] if homeless else []
        lines += [f"{len(missing)} are missing ({missing[0]})"] if missing else []
        raise ResolutionError(
            f"the adapter does not fit the model: {', '.join(lines)}",
            where=str(weights),
            expected="an adapter that was trained on this base model, without embeddings of its own",
            fix="check model.id and the adapter's base_model_name_or_path",
        )
