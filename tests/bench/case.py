"""What is measured: a model shape, lengths and batch sizes. A case is numbers; `build` makes a model of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from inspo_hub.cost import ModelShape


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama, or a Qwen2 where its projections have a bias, with random weights."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool = False
    qwen: bool = False

    @property
    def cost(self) -> ModelShape:
        return ModelShape(
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            intermediate=self.intermediate,
            vocab=self.vocab,
            head_dim=self.hidden // self.heads,
        )

    @property
    def body_params(self) -> int:
        return self.cost.active_params

    @property
    def head_params(self) -> int:
        return self.hidden * self.vocab

    def __str__(self) -> str:
        return f"{_count(self.body_params)} body, {_count(self.head_params)} head ({self.vocab:,} tokens)"

    def config(self) -> PreTrainedConfig:
        return (Qwen2Config if self.qwen else LlamaConfig)(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=32_768,
            tie_word_embeddings=self.tied,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            attn_implementation="sdpa",
        )

    def build(self, *, seed: int, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
        torch.manual_seed(seed)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                return (Qwen2ForCausalLM if self.qwen else LlamaForCausalLM)(self.config())
        finally:
            torch.set_default_dtype(before)


def _count(params: int) -> str:
    return f"{params / 1e9:.1f} B" if params >= 1e9 else f"{params / 1e6:.1f} M"


def _small(layers: int, vocab: int) -> Shape:
    return Shape(hidden=512, layers=layers, heads=8, kv_heads=2, intermediate=1536, vocab=vocab)


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=96, vocab=512),
        "1m": Shape(hidden=256, layers=1, heads=4, kv_heads=2, intermediate=768, vocab=256),
        # Bodies of the same layers, heads of a twelfth of them: nearly the same ratios, in less time with fewer layers.
        "3m": _small(layers=1, vocab=512),
        "6m": _small(layers=2, vocab=1024),
        "24m": _small(layers=8, vocab=4096),
        # A head as large as the body, and larger.
        "3m-6k": _small(layers=1, vocab=6144),
        "3m-32k": _small(layers=1, vocab=32_000),
        "3m-128k": _small(layers=1, vocab=128_256),
        "3m-151k": _small(layers=1, vocab=151_936),
        "6m-12k": _small(layers=2, vocab=12_288),
        "6m-32k": _small(layers=2, vocab=32_000),
        "24m-32k": _small(layers=8, vocab=32_000),
        "24m-128k": _small(layers=8, vocab=128_256),
        "24m-151k": _small(layers=8, vocab=151_936),
        "0.5b": Shape(
            hidden=896, layers=24, heads=14, kv_heads=2, intermediate=4864, vocab=151_936, tied=True, qwen=True
        ),
        "1.5b": Shape(
            hidden=1536, layers=28, heads=12, kv_heads=2, intermediate=8960, vocab=151_936, tied=True, qwen=True
        ),
        "8b": Shape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14_336, vocab=128_256),
    }
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set of pairs and one model on which sides are compared."""

    shape: str = "6m"
    lengths: str = "ultrafeedback"
    max_length: int = 2048
    """Most tokens of a prompt and one response together."""
    pairs: int = 8
    """Pairs of a step."""
    batch: int = 4
    """Pairs of a forward pass of the padded sides."""
    tokens_per_microbatch: int = 8192
    """Tokens of a packed row of ours; the recipe's default."""
    separator: int = 0
    """Tokens between an alternative and what follows it."""
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def model(self) -> Shape:
        return SHAPES[self.shape]

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def __str__(self) -> str:
        lengths = f"{self.lengths}, MaxLen {self.max_length}"
        return f"{lengths}, {self.pairs} pairs, padded in batches of {self.batch} pairs, {self.model}, {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def on(self, device: torch.device) -> Case:
        """The same case on a device, in its usual dtype."""
        return replace(self, device=device.type, dtype="bfloat16" if device.type == "cuda" else "float32")
