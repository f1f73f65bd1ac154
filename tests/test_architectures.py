"""Packed log-probabilities and gradients equal plain forwards, architecture by architecture; the others are known."""

from __future__ import annotations

import logging

import pytest
import torch

from inspo_hub.attention import AttentionCall, AttentionShape
from inspo_hub.attention.blockwise import Scoring
from inspo_hub.logprobs import check_packing
from inspo_hub.logprobs.check import refusal_by_rule
from tests.architectures import FLAT, TREE, Architecture, measure, pairs_of_different_lengths

# Where a model itself leaves float64 on its way: norms and RoPE (gradients), soft-capped attention, MLA and ALiBi.
LOGPS = {"Gemma2 (window, soft-caps)": 1e-5, "DeepSeek-V3 (latent attention)": 1e-6, "Mamba": 1e-4}
GRADIENT = 1e-6
FLOAT32_INSIDE = 2e-6

by_name = pytest.mark.parametrize("architecture", TREE, ids=lambda architecture: architecture.name)
by_name_flat = pytest.mark.parametrize("architecture", FLAT, ids=lambda architecture: architecture.name)


@by_name
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_tree_equals_plain_forwards(architecture: Architecture) -> None:
    model = architecture.build()
    check = check_packing(model, pairs_of_different_lengths(), separator=(3, 4))
    assert check.layout == "tree"
    tolerance = LOGPS.get(architecture.name, 1e-12)
    assert check.max_abs_difference <= tolerance
    for separator, limit in (((3, 4), None), ((), 3)):
        errors = measure(model, "tree", separator=separator, max_alternative_tokens=limit)
        assert errors.logps <= tolerance
        assert errors.gradient <= GRADIENT


@by_name_flat
def test_what_cannot_take_a_tree_is_packed_flat(architecture: Architecture, caplog: pytest.LogCaptureFixture) -> None:
    model = architecture.build()
    with caplog.at_level(logging.INFO, logger="inspo_hub"):
        check = check_packing(model, pairs_of_different_lengths(), separator=(3, 4))
    assert check.layout == "flat"
    said = [record for record in caplog.records if record.name == "inspo_hub.logprobs.check"]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert check.reason in said[0].message
    errors = measure(model, "flat")
    assert errors.logps <= LOGPS.get(architecture.name, FLOAT32_INSIDE)
    assert errors.gradient <= 5e-6


def test_every_layer_is_one_of_ours() -> None:
    assert len(TREE) >= 15
    assert {architecture.layout for architecture in TREE} == {"tree"}
    assert {architecture.layout for architecture in FLAT} == {"flat"}


class _Config:
    num_hidden_layers = 2
    sliding_window: int | None = None
    attention_chunk_size: int | None = None
    layer_types: tuple[str, ...] | None = None

    def __init__(self, **values: object) -> None:
        vars(self).update(values)


def _call(module: int, window: int) -> AttentionCall:
    return AttentionCall(module, AttentionShape("cpu", torch.float32, 4, 2, 8, 8, Scoring(0.3, 0.0, window)))


@pytest.mark.parametrize(
    ("config", "windows", "refusal"),
    [
        (_Config(), (0, 0), None),
        (_Config(sliding_window=8), (8, 8), None),
        (_Config(sliding_window=8, layer_types=("sliding_attention", "full_attention")), (8, 0), None),
        (_Config(sliding_window=8, layer_types=("full_attention", "full_attention")), (0, 0), None),
        (_Config(), (0,), "tree attention ran 1 times in 1 of 2 layers"),
        (_Config(sliding_window=8), (0, 0), "2 layers have a sliding window of 8, 0 asked for it"),
        (_Config(sliding_window=8), (8, 4), "2 layers have a sliding window of 8, 1 asked for it"),
        (_Config(), (8, 8), "0 layers have a sliding window of 0, 0 asked for it"),
        (_Config(attention_chunk_size=8192), (0, 0), "its layers are of kind chunked_attention"),
        (_Config(layer_types=("conv", "full_attention")), (0, 0), "its layers are of kind conv"),
    ],
)
def test_what_short_pairs_cannot_show_is_refused_by_rule(
    config: _Config, windows: tuple[int, ...], refusal: str | None
) -> None:
    calls = [_call(module, window) for module, window in enumerate(windows)]
    assert refusal_by_rule(config, calls) == refusal  # type: ignore[arg-type]


def test_a_layer_called_twice_does_not_stand_for_another() -> None:
    calls = [_call(0, 0), _call(0, 0)]
    assert refusal_by_rule(_Config(), calls) == "tree attention ran 2 times in 1 of 2 layers"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Llama", "Mistral (window)", "GPT-2"])
def test_the_table_measures_float32_as_well(name: str) -> None:
    """In float32 the same models agree to float32: nothing in the packing is precise only in float64."""
    architecture = next(a for a in TREE if a.name == name)
    model = architecture.build(torch.float32)
    assert check_packing(model, pairs_of_different_lengths()).layout == "tree"
    errors = measure(model, "tree")
    assert errors.logps < 2e-4
    assert errors.gradient < 1e-3
