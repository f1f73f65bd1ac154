"""A model's numbers from headers alone, against the models that transformers builds of the same files."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from inspo_hub import hub as room
from inspo_hub.adapters import new_adapter
from inspo_hub.cost import ModelShape
from inspo_hub.errors import ResolutionError
from inspo_hub.recipe import AdapterSection
from inspo_hub.survey import model_facts
from inspo_hub.survey.model import adapter_parameters
from tests.architectures import TREE, Architecture
from tests.hub.conftest import alice, write_files
from tests.hub_server.server import HubServer

__all__ = ["alice"]
DENSE = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Phi3", "Olmo2", "GPTNeoX", "Granite", "SmolLM3")


def local(path: Path) -> room.Pinned:
    return room.resolve("model", str(path))


def trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("architecture", TREE, ids=lambda one: one.name)
def test_parameters_are_those_of_the_model(architecture: Architecture, tmp_path: Path) -> None:
    model = architecture.build(torch.float32)
    model.save_pretrained(tmp_path)
    facts = model_facts(local(tmp_path))
    assert facts.parameters == trained(model)
    assert facts.embedding == model.get_input_embeddings().weight.numel()
    assert facts.body + facts.embedding + facts.head == facts.parameters
    assert facts.by_dtype == {"F32": facts.parameters}
    if architecture.family not in DENSE:
        return
    inside = [
        m.weight.numel()
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and "lm_head" not in n and "embed_out" not in n
    ]
    assert facts.shape.active_params == sum(inside)


@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_matrix_counts_once(tied: bool, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**small(), tie_word_embeddings=tied))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1, "sharded"
    facts = model_facts(local(tmp_path))
    assert facts.parameters == trained(model)
    assert facts.head == (0 if tied else 32 * 64)
    assert facts.download_bytes == sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))


def small(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, **more,
    }  # fmt: skip


def test_gpt2_s_buffers_and_positions_are_no_products(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, bos_token_id=1, eos_token_id=1))
    model.save_pretrained(tmp_path)
    facts = model_facts(local(tmp_path))
    assert facts.parameters == trained(model)
    assert facts.shape.active_params == ModelShape.from_config(model.config.to_dict()).active_params


def test_a_token_meets_the_experts_that_it_is_routed_to(tmp_path: Path) -> None:
    config = MixtralConfig(**small(num_local_experts=4, num_experts_per_tok=1))
    model = MixtralForCausalLM(config)
    model.save_pretrained(tmp_path)
    facts = model_facts(local(tmp_path))
    assert facts.parameters == trained(model)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    matrices = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.dim() > 1 and "embed" not in name and "lm_head" not in name
    )
    assert facts.shape.active_params == matrices - experts * 3 // 4


def header_only(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """A safetensors file of which only the header is there."""
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return struct.pack("<Q", len(text)) + text


def test_other_senses_and_quantised_weights_are_told(tmp_path: Path) -> None:
    config = {"model_type": "made", "tie_word_embeddings": True, "text_config": small(model_type="llama")}
    tensors: dict[str, tuple[str, list[int]]] = {
        "model.language_model.embed_tokens.weight": ("BF16", [64, 32]),
        "model.language_model.layers.0.mlp.up_proj.weight": ("BF16", [48, 32]),
        "model.vision_tower.patch.weight": ("BF16", [100, 10]),
    }
    write_files(tmp_path / "m", {"config.json": json.dumps(config).encode(), "model.safetensors": header_only(tensors)})
    facts = model_facts(local(tmp_path / "m"))
    assert (facts.parameters, facts.embedding, facts.head) == (64 * 32 + 48 * 32, 64 * 32, 0)
    assert "1,000 parameters of other senses" in facts.notes[0]
    tensors["model.language_model.layers.0.mlp.up_proj.weight"] = ("U8", [48, 16])
    (tmp_path / "m" / "model.safetensors").write_bytes(header_only(tensors))
    facts = model_facts(local(tmp_path / "m"))
    assert "quantised" in facts.notes[0]
    assert facts.shape.active_params == ModelShape.from_config(small()).active_params
    assert sum(rows * columns for rows, columns in facts.matrices.values()) == facts.body


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}"}, "no safetensors weights"),
        ({"config.json": b"{}", "adapter_model.safetensors": b""}, "no weights of a whole model"),
        ({"config.json": b"{", "model.safetensors": header_only({})}, "config.json cannot be read"),
        ({"config.json": b"{}", "model.safetensors": header_only({})}, "names no hidden size"),
        ({"config.json": json.dumps(small()).encode(), "model.safetensors": b"1234"}, "no safetensors file"),
        ({"config.json": json.dumps(small()).encode(), "model.safetensors": b"\7" + b"\0" * 20}, "no safetensors file"),
    ],
)
def test_what_is_no_model_is_told(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ResolutionError, match=message):
        model_facts(local(write_files(tmp_path / "m", files)))


def test_headers_come_by_ranges_and_weights_stay_where_they_are(alice: HubServer, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**small(hidden_size=128, intermediate_size=4000, num_hidden_layers=3)))
    model.save_pretrained(tmp_path)
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, {path.name: path.read_bytes() for path in tmp_path.iterdir()})
    alice.log.clear()
    facts = model_facts(room.resolve("model", repo))
    assert facts.parameters == trained(model)
    assert facts.download_bytes == (tmp_path / "model.safetensors").stat().st_size > 15_000_000
    assert room.local_file(room.resolve("model", repo), "model.safetensors") is None
    asked = [entry for entry in alice.log if entry.origin == "cdn"]
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", entry.headers.get("range", "")) for entry in asked]
    assert asked
    assert sum(int(found[2]) - int(found[1]) for found in ranges) <= 2 * room.READ_AHEAD


def test_an_adapter_s_numbers_are_its_tensors(tmp_path: Path) -> None:
    section = AdapterSection(r=4, target_modules=("q_proj", "up_proj"))
    model = new_adapter(LlamaForCausalLM(LlamaConfig(**small())), section, seed=0)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    assert adapter_parameters(local(tmp_path)) == model.get_nb_trainable_parameters()[0]
