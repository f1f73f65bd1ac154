"""Loads the policy, the reference and the tokenizer from a local snapshot, ready for training without surprises."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inspo_hub.errors import RecipeError, ResolutionError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_COMPILERS = ("g++", "clang++", "c++")


def load_tokenizer(
    path: Path, *, chat_template: Path | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The fast tokenizer in a folder, with the recipe's chat template in place of its own where one is named."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ResolutionError(
            f"no tokenizer could be loaded: {str(error).splitlines()[0]}",
            where=str(path),
            expected="tokenizer.json and tokenizer_config.json",
            fix="set model.tokenizer to a repository that has one",
        ) from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    return tokenizer


def load_model(
    path: Path, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False, **options: Any
) -> PreTrainedModel:
    """The causal language model in a folder, from safetensors only, with every dropout off.

    Weights are float32 masters by default: at a learning rate of 5e-7 bfloat16 weights lose most updates.

    Args:
        options: more that `from_pretrained` takes, such as `quantization_config`.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    _refuse_adapter(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ResolutionError(
            f"no causal language model could be loaded: {str(error).splitlines()[0]}",
            where=str(path),
            expected="config.json and *.safetensors of a causal language model",
            fix="check model.id and model.revision; pickled weights are never loaded",
        ) from error
    disable_dropout(model)
    return model


def _refuse_adapter(path: Path) -> None:
    """transformers would quietly load an adapter's base with the adapter on it, and call that the model."""
    config = path / "adapter_config.json"
    if not config.is_file():
        return
    base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    raise ResolutionError(
        "this is an adapter, not a model",
        where=str(path),
        expected="config.json and *.safetensors of a causal language model",
        fix=f"set model.id to its base ({base}) and adapter.base_adapter to this, or `inspo-hub merge` it first",
    )


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout probability of the modules to 0; the config that is saved keeps its values."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "attn_dropout", "hidden_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: `auto` is bfloat16 where the GPU has it and float32 elsewhere."""
    if name == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def embedding_rows(model: PreTrainedModel | PeftModel) -> int:
    """Rows of the input embedding: token ids must be below it."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0]


def compile_layers(model: nn.Module) -> int:
    """Compile each decoder layer in place with torch.compile; returns how many there are.

    Layers, not the whole: they share one graph, embeddings and head stay as they are, and so do the weights' names. The
    number of tokens is left open, so that one graph serves every packed row.

    Raises:
        RecipeError: no C++ compiler is installed, or the model's code has no layers of transformers' own kind.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS) if name):
        raise RecipeError(
            "torch.compile needs a C++ compiler, and none was found",
            where="train.compile",
            expected=f"one of {', '.join(_COMPILERS)} on the PATH, or CXX",
            fix="install g++, or set train.compile: false",
        )
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise RecipeError(
            f"{type(model).__name__} has no decoder layers that could be compiled",
            where="train.compile",
            expected="a model of transformers, whose layers are GradientCheckpointingLayer",
            fix="set train.compile: false",
        )
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)
