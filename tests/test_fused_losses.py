"""Losses with the head's gradients computed in the forward, against the same losses of `tree_logps`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspo_hub.logprobs import fused, tree_logps, tree_losses
from inspo_hub.packing import PackedBatch, pack_pairs
from inspo_hub.views import SCORES, Score, TreeLogps
from tests.architectures import TREE, Architecture, pairs_of_different_lengths
from tests.test_attention import Allocations
from tests.test_logprobs import changed, checkpoint_activations, gradients, one_process

__all__ = ["one_process"]

LLAMA = Architecture(name="Llama", family="Llama")
PAIRS = pairs_of_different_lengths() + pairs_of_different_lengths(seed=1)
REFERENCE = torch.linspace(-80, -20, len(PAIRS), dtype=torch.float64)
CONDITIONED: tuple[Score, ...] = ("chosen_given_rejected", "rejected_given_chosen")
# Vocabulary 64: all pairs in one group · a pair or two per group · no pair's rows fit, so every pair is recomputed.
CHUNKS = {"one group": 2**20, "several groups": 64 * 4 * 60, "recomputed": 64 * 4 * 3}


def batch_of(layout: Any = "tree", scores: Any = SCORES) -> PackedBatch:
    return pack_pairs(PAIRS, scores, separator=(3, 4), max_alternative_tokens=5, layout=layout)


def pair_losses(logps: TreeLogps, pairs: slice) -> Tensor:
    """A loss that uses every score it is given and something of the pairs that the caller has."""
    values = [value for value in vars(logps).values() if value is not None]
    margin = values[0] - values[-1] - REFERENCE[pairs].to(values[0].dtype)
    return -F.logsigmoid(0.1 * margin) + 0.01 * sum(values[1:]) ** 2


def expected(model: nn.Module, batch: PackedBatch, scores: Any, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
    losses = pair_losses(tree_logps(model, batch, scores=scores), slice(0, batch.pairs))
    (losses.sum() * scale).backward()
    return losses.detach(), gradients(model)


def assert_equal(model: nn.Module, batch: PackedBatch, scores: Any = SCORES, tolerance: float = 1e-9) -> None:
    losses, wanted = expected(model, batch, scores, scale=0.25)
    logps = tree_logps(model, batch, scores=scores)
    losses_of_pairs = tree_losses(model, batch, pair_losses, scores=scores)
    torch.testing.assert_close(losses_of_pairs.losses, losses, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(losses_of_pairs.total, losses.sum(), rtol=tolerance, atol=tolerance)
    for score in scores:
        torch.testing.assert_close(
            losses_of_pairs.logps.get(score), logps.get(score).detach(), rtol=tolerance, atol=tolerance
        )
        assert not losses_of_pairs.logps.get(score).requires_grad
    (losses_of_pairs.total * 0.25).backward()
    got = gradients(model)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        bound = max(tolerance, 5e-7) * float(gradient.abs().max())
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=bound)


@pytest.mark.parametrize("chunk_bytes", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("scores", [SCORES, CONDITIONED, ("chosen", "rejected")], ids="+".join)
def test_equals_the_losses_of_tree_logps(
    chunk_bytes: int, layout: Any, scores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fused.KEPT_BYTES, "cpu", chunk_bytes)
    assert_equal(LLAMA.build(), batch_of(layout, scores), scores)


@pytest.mark.parametrize("chunk_bytes", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize("name", ["Granite (scaled logits)", "Gemma2 (window, soft-caps)", "Phi", "GPT-2"])
def test_scales_soft_caps_biases_and_tied_heads(name: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused.KEPT_BYTES, "cpu", chunk_bytes)
    assert_equal(next(a for a in TREE if a.name == name).build(), batch_of())


def test_an_unknown_head_transform_is_still_exact() -> None:
    assert_equal(changed(change=lambda logits: logits + 0.1 * logits**3), batch_of())


def test_a_frozen_head_and_a_frozen_body() -> None:
    for frozen in ("lm_head", "model"):
        model = LLAMA.build()
        getattr(model, frozen).requires_grad_(False)
        assert_equal(model, batch_of())


def test_float32_and_autocast_are_near() -> None:
    model = LLAMA.build(torch.float32)
    assert_equal(model, batch_of(), tolerance=2e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(model, batch_of(), tolerance=1e-2)


def test_gradient_checkpointing() -> None:
    model = LLAMA.build()
    model.train()
    checkpoint_activations(model)
    assert_equal(model, batch_of())


def test_wrapped_by_ddp(one_process: None) -> None:
    model = LLAMA.build()
    losses, wanted = expected(model, batch_of(), SCORES, scale=1.0)
    wrapped = nn.parallel.DistributedDataParallel(model)
    losses_of_pairs = tree_losses(wrapped, batch_of(), pair_losses, scores=SCORES)
    torch.testing.assert_close(losses_of_pairs.losses, losses, rtol=1e-9, atol=1e-9)
    losses_of_pairs.total.backward()
    got = gradients(model)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=5e-7 * float(gradient.abs().max()))


def test_wrapped_by_fsdp2(one_process: None) -> None:
    from torch.distributed.fsdp import fully_shard

    from inspo_hub.logprobs import prepare_model

    model = LLAMA.build()
    _, wanted = expected(model, batch_of(), SCORES, scale=1.0)
    prepare_model(model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    tree_losses(model, batch_of(), pair_losses, scores=SCORES).total.backward()
    for name, parameter in model.named_parameters():
        got = parameter.grad.full_tensor()  # type: ignore[union-attr]
        torch.testing.assert_close(got, wanted[name], rtol=0, atol=5e-7 * float(wanted[name].abs().max()))


def test_observed_scores_come_without_gradient() -> None:
    model = LLAMA.build()
    losses_of_pairs = tree_losses(model, batch_of(), pair_losses, scores=CONDITIONED, no_grad_scores=("chosen",))
    exact = tree_logps(model, batch_of(), scores=("chosen",))
    torch.testing.assert_close(
        losses_of_pairs.logps.get("chosen"), exact.get("chosen").detach(), rtol=1e-12, atol=1e-12
    )
    assert losses_of_pairs.logps.rejected is None


def test_without_gradients_none_are_computed() -> None:
    model = LLAMA.build()
    exact = pair_losses(tree_logps(model, batch_of()), slice(0, len(PAIRS))).detach()
    with torch.no_grad(), Allocations() as seen:
        losses_of_pairs = tree_losses(model, batch_of(), pair_losses, scores=SCORES)
    torch.testing.assert_close(losses_of_pairs.losses, exact, rtol=1e-9, atol=1e-9)
    assert not losses_of_pairs.total.requires_grad
    assert tuple(model.lm_head.weight.shape) not in seen.shapes


def test_a_second_backward_is_refused() -> None:
    losses_of_pairs = tree_losses(LLAMA.build(), batch_of(), pair_losses, scores=SCORES)
    losses_of_pairs.total.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="can be had once"):
        losses_of_pairs.total.backward()


def test_logits_never_outgrow_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, vocab = 8, 4096
    monkeypatch.setitem(fused.KEPT_BYTES, "cpu", 4 * vocab * rows)
    model = Architecture(name="Llama", family="Llama", options={"vocab_size": vocab}).build(torch.float32)
    with Allocations() as seen:
        tree_losses(model, batch_of(), pair_losses, scores=SCORES).total.backward()
    assert (rows, vocab) in seen.shapes
    hidden = LLAMA.base["hidden_size"]  # the weight, transposed, has the vocabulary's width too
    heights = {shape[0] for shape in seen.shapes if len(shape) == 2 and shape[1] == vocab} - {hidden}
    assert max(heights) == rows
