"""Packed log-probabilities on a GPU: equal to plain forwards there, and without waiting for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inspo_hub.logprobs import check_packing, prepare_model, tree_logps, tree_losses
from inspo_hub.packing import pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES
from tests.architectures import TREE, Architecture

pytestmark = pytest.mark.gpu

NAMES = ("Llama", "Mistral (window)", "Gemma2 (window, soft-caps)", "GPT-OSS (sinks, window)", "Qwen3", "GPT-2")
ARCHITECTURES = [architecture for architecture in TREE if architecture.name in NAMES]


def pairs(vocab: int = 64) -> list[PreferencePair]:
    generator = torch.Generator().manual_seed(0)
    lengths = ((20, 40, 30), (5, 1, 60), (33, 25, 25))
    parts = [[torch.randint(3, vocab, (n,), generator=generator).tolist() for n in some] for some in lengths]
    return [PreferencePair(*some, row_id=f"row {row}") for row, some in enumerate(parts)]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_start_up_check_chooses_the_tree(architecture: Architecture, dtype: torch.dtype) -> None:
    check = check_packing(architecture.build(dtype).cuda(), pairs(), separator=(3, 4))
    assert check.layout == "tree", check.reason


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
@pytest.mark.parametrize("gradient", ["full", "stopped"])
def test_gradients_equal_the_cpus(architecture: Architecture, gradient: Any) -> None:
    on_cpu, on_gpu = architecture.build(torch.float32), architecture.build(torch.float32).cuda()
    batch = pack_pairs(pairs(), SCORES, separator=(3, 4), alternative_gradient=gradient)
    for model, some in ((on_cpu, batch), (on_gpu, batch.to("cuda"))):
        logps = vars(tree_logps(model, some)).values()
        sum(value.sum() for value in logps if value.requires_grad).backward()
    for (name, a), b in zip(on_cpu.named_parameters(), on_gpu.parameters(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=0, atol=2e-3 * float(a.grad.abs().max()))  # type: ignore[union-attr]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("gradient", ["full", "stopped"])
def test_a_forward_and_a_backward_never_wait_for_the_device(fused: bool, gradient: Any) -> None:
    model: Any = prepare_model(TREE[0].build(torch.bfloat16).cuda())
    batch = pack_pairs(pairs(), SCORES, separator=(3, 4), alternative_gradient=gradient).to("cuda")
    given: Any = ("chosen_given_rejected", "rejected_given_chosen")

    def step() -> None:
        if fused:
            losses = tree_losses(model, batch, lambda logps, _pairs: -logps.get("chosen_given_rejected"), scores=given)
            losses.total.backward()
        else:
            logps = vars(tree_logps(model, batch)).values()
            sum(value.sum() for value in logps if value.requires_grad).backward()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
