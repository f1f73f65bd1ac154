"""A model's numbers from config.json and the headers of its safetensors files; not one weight is read."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from inspo_hub import hub
from inspo_hub.cost import ModelShape
from inspo_hub.errors import ResolutionError
from inspo_hub.plan.facts import ModelFacts

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings)\.weight$")
_HEAD = re.compile(r"^(.*\.)?(lm_head|embed_out)\.weight$")
_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?)\.weight$")
_BUFFERS = re.compile(
    r"(rotary_emb\.inv_freq|(^|\.)attn\.(masked_)?bias|attention\.(masked_)?bias|e_score_correction_bias)$"
)
_OTHER_SENSES = re.compile(r"(^|\.)(vision|visual|audio|image|multi_modal|mm_|speech)")
_EXPERTS = re.compile(r"\.experts\.")
_PACKED = {"U8", "I8", "I32", "F8_E4M3", "F8_E5M2", "F4"}
"""Formats of weights that were quantised: a tensor's numbers are not the model's."""


def model_facts(pinned: hub.Pinned) -> ModelFacts:
    """The numbers of a pinned causal language model.

    Raises:
        ResolutionError: it has no safetensors weights, or its config.json describes no decoder.
    """
    config = _config(pinned)
    tensors, download_bytes = _tensors(pinned)
    sorted_out = _sort_out(tensors)
    text = config["text_config"] if "hidden_size" not in config and "text_config" in config else config
    shape = _shape(text, str(pinned))
    notes = []
    if sorted_out.packed:
        notes.append("the weights are stored quantised: parameters are counted from config.json")
        sorted_out = _from_shape(shape, tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings"))))
    else:
        shape = replace(shape, body_params=_active(sorted_out, text))
    if sorted_out.left_out:
        notes.append(f"{sorted_out.left_out:,} parameters of other senses than text are left out")
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    head = 0 if tied else sorted_out.head
    return ModelFacts(
        name=str(pinned),
        model_type=str(text.get("model_type", "")),
        shape=shape,
        parameters=sorted_out.embedding + head + sorted_out.body,
        by_dtype=dict(sorted_out.by_dtype),
        embedding=sorted_out.embedding,
        head=head,
        matrices=sorted_out.matrices,
        download_bytes=download_bytes,
        notes=tuple(notes),
    )


def adapter_parameters(pinned: hub.Pinned) -> int:
    """The numbers of a pinned adapter, from the header of its weights."""
    return sum(math.prod(tensor["shape"]) for tensor in hub.safetensors_header(pinned, ADAPTER_WEIGHTS).values())


def _config(pinned: hub.Pinned) -> dict[str, Any]:
    folder = hub.fetch(pinned, "config", patterns=["config.json"])
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_decoder(str(pinned), f"config.json cannot be read: {error}") from error
    return config


def _no_decoder(where: str, what: str) -> ResolutionError:
    return ResolutionError(
        what,
        where=f"model {where}",
        expected="config.json of a causal language model of transformers",
        fix="check model.id and model.revision",
    )


def _shape(config: Mapping[str, Any], where: str) -> ModelShape:
    try:
        return ModelShape.from_config(config)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise _no_decoder(where, "config.json names no hidden size, layers, heads or vocabulary") from error


def _tensors(pinned: hub.Pinned) -> tuple[dict[str, dict[str, Any]], int]:
    """Tensor name -> its header entry over all weight files, and the files' bytes."""
    if pinned.path is not None:
        folder = hub.fetch(pinned)  # refuses pickled weights, and downloads nothing
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if hub.is_weight_file(path.name)}
    else:
        sizes = {file.path: file.size for file in hub.wanted_files(pinned) if hub.is_weight_file(file.path)}
    names = [name for name in sorted(sizes) if name.startswith("model")]
    if not names:
        raise ResolutionError(
            "there are no weights of a whole model",
            where=f"model {pinned}",
            expected="model.safetensors, or model-00001-of-0000N.safetensors",
            fix="an adapter goes to adapter.base_adapter, its base to model.id",
        )
    tensors: dict[str, dict[str, Any]] = {}
    for name in names:
        tensors.update(hub.safetensors_header(pinned, name))
    return tensors, sum(sizes[name] for name in names)


@dataclass
class _Sorted:
    """Numbers of a model's tensors by what they are."""

    embedding: int = 0
    head: int = 0
    body: int = 0
    experts: int = 0
    """Of the body: numbers in matrices of experts."""
    left_out: int = 0
    packed: bool = False

    def __post_init__(self) -> None:
        self.by_dtype: Counter[str] = Counter()
        self.matrices: dict[str, tuple[int, int]] = {}


def _sort_out(tensors: Mapping[str, Mapping[str, Any]]) -> _Sorted:
    found = _Sorted()
    for name, tensor in tensors.items():
        size, shape = math.prod(tensor["shape"]), tensor["shape"]
        if _BUFFERS.search(name):
            continue
        if _OTHER_SENSES.search(name):
            found.left_out += size
            continue
        found.by_dtype[tensor["dtype"]] += size
        found.packed = found.packed or (tensor["dtype"] in _PACKED and len(shape) > 1)
        if _EMBEDDING.search(name):
            found.embedding += size
        elif _HEAD.search(name):
            found.head += size
        else:
            found.body += size
            if len(shape) >= 2 and not _POSITIONS.search(name):
                found.matrices[name] = (size // shape[-1], shape[-1])
                found.experts += size if _EXPERTS.search(name) else 0
    return found


def _active(found: _Sorted, config: Mapping[str, Any]) -> int:
    """Numbers of the layers' matrices that one token meets: of experts, those that it is routed to."""
    matrices = sum(rows * columns for rows, columns in found.matrices.values())
    experts = next(
        (config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if key in config), 0
    )
    routed = config.get("num_experts_per_tok") or 0
    if not (experts and routed and found.experts):
        return matrices
    return matrices - found.experts + found.experts * int(routed) // int(experts)


def _from_shape(shape: ModelShape, *, tied: bool) -> _Sorted:
    """The same from config.json alone, for weights whose tensors do not tell."""
    found = _Sorted(embedding=shape.hidden * shape.vocab, head=0 if tied else shape.hidden * shape.vocab)
    found.body = shape.active_params
    width = shape.head_dim
    for layer in range(shape.layers):
        for name, rows, columns in (
            ("q_proj", shape.heads * width, shape.hidden),
            ("k_proj", shape.kv_heads * width, shape.hidden),
            ("v_proj", shape.kv_heads * width, shape.hidden),
            ("o_proj", shape.hidden, shape.heads * width),
            *([("gate_proj", shape.intermediate, shape.hidden)] if shape.gated else []),
            ("up_proj", shape.intermediate, shape.hidden),
            ("down_proj", shape.hidden, shape.intermediate),
        ):
            found.matrices[f"layers.{layer}.{name}.weight"] = (rows, columns)
    return found
