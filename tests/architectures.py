"""Tiny random models of many architectures, and the table of how well packed log-probabilities equal plain forwards.

python -m tests.architectures --table    # writes the Markdown of docs/architectures.md to standard output
"""

from __future__ import annotations

import argparse
import logging
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn

from inspo_hub.logprobs import check_packing, restore_model, tree_logps
from inspo_hub.packing import Layout, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score
from tests.oracle import plain_logps

VOCAB = 64
_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT2: dict[str, Any] = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One tiny model, and how it must be packed."""

    name: str
    family: str
    """Prefix of transformers' classes: `<family>Config`, `<family>ForCausalLM`."""
    options: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=lambda: _BASE)
    layout: Layout = "tree"
    causal_lm: str = ""
    """The model's class where it is not `<family>ForCausalLM`."""

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> transformers.PreTrainedModel:
        """A random model whose attention is far from uniform, without dropout."""
        torch.manual_seed(seed)
        config = getattr(transformers, f"{self.family}Config")(**(self.base | self.options))
        config._experts_implementation = "eager"  # the grouped product has no float64
        model = getattr(transformers, self.causal_lm or f"{self.family}ForCausalLM")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(0.25 / parameter.std().clamp_min(1e-3))
                elif (
                    parameter.std() == 0
                ):  # biases, norms and sinks start as constants: a mistake in them would not show
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return model.to(dtype).eval()


def _layers(*kinds: str) -> dict[str, Any]:
    return {"layer_types": list(kinds), "num_hidden_layers": len(kinds)}


_SLIDING = _layers("sliding_attention", "full_attention")
_MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
}

TREE = (
    Architecture(name="Llama", family="Llama"),
    Architecture(name="Mistral", family="Mistral", options={"sliding_window": None}),
    Architecture(name="Mistral (window)", family="Mistral", options={"sliding_window": 7}),
    Architecture(name="Qwen2", family="Qwen2"),
    Architecture(
        name="Qwen2 (window)",
        family="Qwen2",
        options={"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    Architecture(name="Qwen3", family="Qwen3", options={"head_dim": 8}),
    Architecture(
        name="Gemma2 (window, soft-caps)",
        family="Gemma2",
        options={"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8, **_SLIDING},
    ),
    Architecture(
        name="Gemma3 (window)",
        family="Gemma3Text",
        causal_lm="Gemma3ForCausalLM",
        options={"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8, **_SLIDING},
    ),
    Architecture(name="Phi", family="Phi"),
    Architecture(name="Phi3", family="Phi3", options={"sliding_window": None}),
    Architecture(name="Phi3 (window)", family="Phi3", options={"sliding_window": 7}),
    Architecture(name="OLMo2", family="Olmo2"),
    Architecture(name="OLMo3 (window)", family="Olmo3", options={"sliding_window": 6, **_SLIDING}),
    Architecture(name="GPT-NeoX", family="GPTNeoX"),
    Architecture(
        name="Granite (scaled logits)", family="Granite", options={"logits_scaling": 3.0, "attention_multiplier": 0.5}
    ),
    Architecture(name="Mixtral", family="Mixtral", options=_MOE),
    Architecture(name="Qwen2-MoE", family="Qwen2Moe", options={**_MOE, "shared_expert_intermediate_size": 24}),
    Architecture(name="Qwen3-MoE", family="Qwen3Moe", options={**_MOE, "head_dim": 8}),
    Architecture(name="GPT-2", family="GPT2", base={**_GPT2, **_TOKENS}, causal_lm="GPT2LMHeadModel"),
    Architecture(name="SmolLM3 (layer without RoPE)", family="SmolLM3", options={"no_rope_layers": [1, 0]}),
    Architecture(name="Cohere (scaled logits)", family="Cohere", options={"logit_scale": 0.25}),
    Architecture(
        name="Cohere2 (window, scaled logits)",
        family="Cohere2",
        options={"logit_scale": 0.25, "sliding_window": 6, **_SLIDING},
    ),
    Architecture(name="GLM4", family="Glm4", options={"head_dim": 8}),
    Architecture(name="StarCoder2", family="Starcoder2", options={"sliding_window": None}),
    Architecture(
        name="GPT-OSS (sinks, window)",
        family="GptOss",
        options={**_MOE, "head_dim": 8, "sliding_window": 6, **_SLIDING},
    ),
    Architecture(
        name="OPT",
        family="OPT",
        base={
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 32,
            **_TOKENS,
        },
    ),
    Architecture(name="EXAONE4 (window)", family="Exaone4", options={"sliding_window": 6, **_SLIDING}),
    Architecture(
        name="DeepSeek-V3 (latent attention)",
        family="DeepseekV3",
        options={
            **_MLA,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
)

FLAT = (
    Architecture(
        name="Falcon",
        family="Falcon",
        base={"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_TOKENS},
        layout="flat",
    ),
    Architecture(
        name="BLOOM",
        family="Bloom",
        base={"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4, **_TOKENS},
        layout="flat",
    ),
    Architecture(
        name="MPT",
        family="Mpt",
        base={"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, **_TOKENS},
        layout="flat",
    ),
    Architecture(name="GPT-J", family="GPTJ", base={**_GPT2, **_TOKENS, "rotary_dim": 4}, layout="flat"),
    Architecture(
        name="Mamba",
        family="Mamba",
        base={"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, **_TOKENS},
        layout="flat",
    ),
    Architecture(
        name="Llama4 text (chunked attention)",
        family="Llama4Text",
        causal_lm="Llama4ForCausalLM",
        options={
            **_MOE,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "attention_chunk_size": 8,
            **_layers("chunked_attention", "full_attention"),
        },
        layout="flat",
    ),
    Architecture(
        name="Qwen3-Next (linear attention)",
        family="Qwen3Next",
        options={
            **_MOE,
            "head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "shared_expert_intermediate_size": 24,
            **_layers("linear_attention", "full_attention"),
        },
        layout="flat",
    ),
    Architecture(
        name="MiniMax (linear attention)",
        family="MiniMax",
        options={**_MOE, "head_dim": 8, "block_size": 8, **_layers("linear_attention", "full_attention")},
        layout="flat",
    ),
    Architecture(
        name="LFM2 (convolution)",
        family="Lfm2",
        options={"block_auto_adjust_ff_dim": False, **_layers("conv", "full_attention")},
        layout="flat",
    ),
    Architecture(
        name="Jamba (state space)",
        family="Jamba",
        options={
            **_MOE,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 4,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        layout="flat",
    ),
    Architecture(name="StableLM", family="StableLm", layout="flat"),
    Architecture(name="Nemotron", family="Nemotron", layout="flat"),
)


def pairs_of_different_lengths(seed: int = 0) -> list[PreferencePair]:
    """Three pairs: an ordinary one, one with a response of one token, one whose prompt is one token."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCAB, (count,), generator=generator).tolist()

    lengths = ((6, 9, 14), (23, 1, 4), (1, 17, 3))
    return [PreferencePair(tokens(p), tokens(c), tokens(r), row_id=f"row {p}") for p, c, r in lengths]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Largest errors against plain forwards."""

    logps: float
    """Nats."""
    gradient: float
    """Largest over parameters of max |Δ gradient| / max |gradient|."""


def measure(
    model: nn.Module,
    layout: Layout,
    scores: tuple[Score, ...] = SCORES,
    *,
    separator: tuple[int, ...] = (3, 4),
    max_alternative_tokens: int | None = None,
) -> Errors:
    """How far the packed log-probabilities and their gradients are from the oracle's."""
    pairs = pairs_of_different_lengths()
    how: dict[str, Any] = {"separator": separator, "max_alternative_tokens": max_alternative_tokens}
    weights = torch.linspace(0.5, 1.5, len(scores) * len(pairs), dtype=torch.float64).view(len(scores), -1)
    restore_model(model)
    plain = plain_logps(model, pairs, scores, **how)
    expected = _gradients(model, plain, weights)
    packed = tree_logps(model, pack_pairs(pairs, scores, layout=layout, **how))
    by_score = {score: packed.get(score) for score in scores}
    actual = _gradients(model, by_score, weights)
    logps = max(float((by_score[score] - plain[score]).detach().abs().max()) for score in scores)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    gradient = max(
        float((a - e).abs().max() / e.abs().max().clamp_min(1e-6 * scale))
        for a, e in zip(actual, expected, strict=True)
    )
    return Errors(logps=logps, gradient=gradient)


def _gradients(model: nn.Module, logps: dict[Score, torch.Tensor], weights: torch.Tensor) -> list[torch.Tensor]:
    loss = sum((weight * logps[score]).sum() for score, weight in zip(logps, weights, strict=True))
    assert isinstance(loss, torch.Tensor)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


def table() -> str:
    """Markdown: for each architecture the layout that the start-up check chooses, and the errors of that layout."""
    lines = [
        "| architecture | layout | max \\|Δ log-prob\\| (nats) | relative gradient error | why |",
        "|---|---|---|---|---|",
    ]
    for architecture in (*TREE, *FLAT):
        model = architecture.build()
        check = check_packing(model, pairs_of_different_lengths(), separator=(3, 4))
        errors = measure(model, check.layout)
        reason = check.reason.split("(", 1)[1].split(")")[0] if check.layout == "flat" else ""
        lines.append(
            f"| {architecture.name} | {check.layout} | {errors.logps:.0e} | {errors.gradient:.0e} | {reason} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", required=True, help="print the table as Markdown")
    parser.parse_args()
    logging.getLogger("inspo_hub").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    print(table())


if __name__ == "__main__":
    main()
