"""Peak memory of one device in a training step, part by part, from shapes alone.

What autograd keeps was counted tensor by tensor (tests/plan/test_memory.py): the formulas are those of decoders with
RMS norms and a gated MLP; other decoders keep about as much. Engines' own buffers follow their documented defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from inspo_hub.cost import ModelShape
    from inspo_hub.plan.facts import ModelFacts

Engine = Literal["single", "ddp", "zero2", "fsdp2", "zero3"]
ENGINES: Mapping[Engine, str] = MappingProxyType(
    {
        "single": "one device",
        "ddp": "DDP: every GPU holds everything",
        "zero2": "DeepSpeed ZeRO-2: gradients and optimizer state are shared out",
        "fsdp2": "FSDP2: weights too are shared out",
        "zero3": "DeepSpeed ZeRO-3: weights too are shared out",
    }
)
"""In the order in which a plan prefers them where they take the same time."""

OPTIMIZER_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "adamw_torch": 8,
        "adamw_torch_fused": 8,
        # One byte a moment, and a float32 scale for each block of 256 values.
        "adamw_8bit": 2 + 2 * 4 / 256,
        "paged_adamw_8bit": 2 + 2 * 4 / 256,
        "paged_adamw_32bit": 8,
        "lion_8bit": 1 + 4 / 256,
        "lion_32bit": 4,
        "rmsprop": 4,
        "sgd": 0,
    }
)
"""Bytes of optimizer state for each trained number; Adafactor is counted by rows and columns."""

KEPT_BYTES = {"cpu": 2**28, "gpu": 2**30}
"""Most bytes of float32 logits that the head keeps at a time, as `logprobs.fused` groups them."""
CHUNK_BYTES = {"cpu": 2**26, "gpu": 2**29}
"""The same of the reference pass, as `logprobs.chunks` cuts them."""
RUNTIME_BYTES = {"cpu": 620_000_000, "gpu": 1_200_000_000}
"""ASSUMED: interpreter and libraries; on a GPU the CUDA context, its libraries' workspaces and NCCL's buffers."""
USABLE = 0.94
"""ASSUMED: share of a device's memory that tensors can fill before fragments stand in the way."""
_BUCKET_BYTES = 2 * 5e8 * 2
"""DeepSpeed's buckets for reducing and gathering: two of 5e8 numbers in bfloat16."""
_LIVE_PARAMETERS = 1e9
"""DeepSpeed's `stage3_max_live_parameters`."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What of a model is trained, and in which number formats."""

    bfloat16: bool
    """Matrix products in bfloat16 around float32 weights."""
    checkpointing: bool
    optimizer: str = "adamw_torch"
    adapter: int | None = None
    """Parameters of a LoRA adapter on the frozen base; None: the whole model is trained."""
    quantized: bool = False
    """The frozen base's matrices are in 4 bits."""

    def trained(self, model: ModelFacts) -> int:
        return model.parameters if self.adapter is None else self.adapter


@dataclass(frozen=True)
class Memory:
    """Bytes of a device at the step's peak. `parts` add up to `training`."""

    parts: Mapping[str, float]
    reference: float
    """The peak of the reference pass, which comes before and shares nothing but the weights."""

    @property
    def training(self) -> float:
        return sum(self.parts.values())

    @property
    def total(self) -> float:
        return max(self.training, self.reference)


def peak_memory(
    model: ModelFacts,
    training: Training,
    *,
    tokens: int,
    scored: int | None = None,
    backward: int | None = None,
    accumulates: bool = True,
    engine: Engine = "single",
    devices: int = 1,
    on_gpu: bool = True,
    other_reference: int = 0,
) -> Memory:
    """The peak of one device whose largest micro-batch has `tokens` tokens.

    Args:
        scored: tokens of that micro-batch that the head scores; None: all.
        backward: tokens of it that the backward runs through; None: all. Of the others keys and values are kept.
        accumulates: a step has several micro-batches on a device, so that gradients lie there while activations grow.
        devices: processes that the engine shares the model among.
        other_reference: parameters of a reference model that is not the initial policy; 0: there is none.
    """
    kind = "gpu" if on_gpu else "cpu"
    kept = tokens if backward is None else backward
    trained = training.trained(model)
    weights = _weights(model, training, engine, devices)
    gradients = 4.0 * trained / (devices if engine in ("zero2", "zero3") else 1)
    if engine == "fsdp2":
        # Between micro-batches gradients stay whole, in the compute dtype: they are reduced once, in the last one.
        gradients = 4.0 * trained / devices + (2.0 * trained if accumulates else 0.0)
    state = optimizer_state(model, training) / (devices if engine in ("zero2", "zero3", "fsdp2") else 1)
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimizer state": state,
        f"{engine} buffers": _engine_buffers(model, training, engine),
        "bfloat16 copies of weights": _low_precision_copies(model, training, engine),
        "activations": kept * activation_bytes(model, training) + (tokens - kept) * _key_value_bytes(model, training),
        "head's gradient": 4.0 * model.shape.hidden * model.shape.vocab if training.adapter is None else 0.0,
        # The head is done before the first layer's backward begins.
        "workspace": max(
            tokens * _layer_workspace(model, training), _head_workspace(model, training, scored or tokens, kind)
        ),
        "runtime": float(RUNTIME_BYTES[kind]),
    }
    forward = tokens * (4 * model.shape.hidden + _products_workspace(model.shape, training)) + CHUNK_BYTES[kind]
    held = _held_for_reference(model, training, engine, devices, other_reference)
    reference = held + forward + RUNTIME_BYTES[kind]
    return Memory({name: size for name, size in parts.items() if size > 0}, reference)


def _held_for_reference(
    model: ModelFacts, training: Training, engine: Engine, devices: int, other_reference: int
) -> float:
    """Weights during the reference pass. It comes before DeepSpeed has the model: until then every process has all."""
    shared = engine == "fsdp2"
    weights = _weights(model, training, engine if shared else "single", devices)
    if shared:
        copies = _engine_buffers(model, training, engine)
    else:
        copies = 2.0 * model.parameters if training.bfloat16 and training.adapter is None else 0.0
    return weights + copies + 4.0 * other_reference / (devices if shared else 1)


def activation_bytes(model: ModelFacts, training: Training) -> float:
    """Bytes that autograd keeps of one token from the forward to the backward of a micro-batch, all layers."""
    shape = model.shape
    ends = 12.0 * shape.hidden  # the last norm's input, its normalised form, and the gradient that the head leaves
    stream = (2 if training.bfloat16 and training.adapter is not None else 4) * shape.hidden
    if training.checkpointing:
        return shape.layers * stream + ends
    return shape.layers * _layer_bytes(model, training) + ends


def _key_value_bytes(model: ModelFacts, training: Training) -> float:
    """Bytes of one token's keys and values in all layers."""
    shape = model.shape
    return shape.layers * 2 * shape.kv_heads * shape.head_dim * (2 if training.bfloat16 else 4)


def _layer_bytes(model: ModelFacts, training: Training) -> float:
    """Bytes that one decoder layer keeps of one token."""
    shape, norms = model.shape, _NORMS.get(model.model_type, 2)
    hidden, heads = shape.hidden, shape.heads * shape.head_dim
    around = heads * 2 + shape.kv_heads * shape.head_dim * 2  # queries, keys, values, and what attention gives
    inner = (4 if shape.gated else 2) * shape.intermediate
    sums = 4.0 * norms + 4 * shape.heads
    if not training.bfloat16:
        return 12 * norms * hidden + 4 * (around + inner) + sums
    # A product under autocast keeps its own bfloat16 copy of its input, also where several read the same one.
    copies = (3 + (2 if shape.gated else 1)) * hidden
    return 8 * norms * hidden + 2 * (copies + around + inner) + sums


_NORMS = {"gemma2": 4, "gemma3": 4, "gemma3_text": 4, "glm4": 4}
"""Norms of a decoder layer on the residual stream, where they are not two."""


def _layer_workspace(model: ModelFacts, training: Training) -> float:
    """Bytes per token that the backward of one layer needs beside what was kept: all of it where it is recomputed."""
    again = _layer_bytes(model, training) if training.checkpointing else 0.0
    return again + _products_workspace(model.shape, training)


def _products_workspace(shape: ModelShape, training: Training) -> float:
    return (2 if training.bfloat16 else 4) * (shape.intermediate + 1.5 * shape.hidden)


def _head_workspace(model: ModelFacts, training: Training, scored: int, kind: str) -> float:
    """The logits of a group of pairs; in bfloat16 their gradient too, the head, and on a GPU a product of its size."""
    matrix = model.shape.hidden * model.shape.vocab
    logits = min(KEPT_BYTES[kind], 4.0 * model.shape.vocab * scored)
    if not training.bfloat16:
        return logits
    return 2 * logits + (6.0 if kind == "gpu" else 2.0) * matrix


def _weights(model: ModelFacts, training: Training, engine: Engine, devices: int) -> float:
    shared = devices if engine in ("fsdp2", "zero3") else 1
    if training.adapter is not None:
        base = (2.0 if training.bfloat16 else 4.0) * model.parameters
        if training.quantized:
            # NF4 with double quantisation: 4.127 bits a number (arXiv:2305.14314); embedding and head are left alone.
            base = 4.127 / 8 * model.body + 2.0 * (model.embedding + model.head)
        return (base + 4.0 * training.adapter) / shared
    if engine in ("zero2", "zero3"):
        # DeepSpeed's own mixed precision: bfloat16 weights, and float32 masters that are always shared out.
        return 2.0 * model.parameters / shared + 4.0 * model.parameters / devices
    return 4.0 * model.parameters / shared


def optimizer_state(model: ModelFacts, training: Training) -> float:
    """Bytes of the optimizer's state for the whole model."""
    trained = training.trained(model)
    if training.optimizer != "adafactor":
        return OPTIMIZER_BYTES[training.optimizer] * trained
    if training.adapter is not None:
        return 4.0 * trained
    ends = [(model.shape.vocab, model.shape.hidden)] * (2 if model.head else 1)
    return 4.0 * sum(rows + columns for rows, columns in [*model.matrices.values(), *ends])


def _engine_buffers(model: ModelFacts, training: Training, engine: Engine) -> float:
    trained = training.trained(model)
    if engine == "ddp":
        return 4.0 * trained  # its buckets, beside the gradients themselves
    if engine == "zero2":
        return min(_BUCKET_BYTES, 4.0 * trained)
    if engine == "zero3":
        return min(_BUCKET_BYTES, 4.0 * trained) + 2.0 * min(_LIVE_PARAMETERS, model.parameters)
    if engine == "fsdp2":
        # Two layers whole, embedding and head whole, and the gradients of one layer on their way.
        return 2.0 * (3 * model.layer + model.embedding + model.head)
    return 0.0


def _low_precision_copies(model: ModelFacts, training: Training, engine: Engine) -> float:
    """Autocast keeps the bfloat16 copy of each matrix from forward to backward; recomputed layers make theirs anew."""
    if not training.bfloat16 or engine in ("zero2", "zero3", "fsdp2") or training.adapter is not None:
        return 0.0
    return 2.0 * (model.layer if training.checkpointing else model.body)
