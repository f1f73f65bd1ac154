"""Predicted memory against tensors that were counted: what autograd keeps, and the peak of a whole step."""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from inspo_hub.cost import ModelShape
from inspo_hub.logprobs import chunks, fused, prepare_model, tree_losses
from inspo_hub.packing import PackedBatch, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.plan.memory import (
    CHUNK_BYTES,
    ENGINES,
    KEPT_BYTES,
    Training,
    activation_bytes,
    optimizer_state,
    peak_memory,
)
from inspo_hub.views import TreeLogps
from tests.plan.facts import EIGHT, SMALL, model_of

FORMATS = list(itertools.product((False, True), (False, True)))


def build(shape: ModelShape, *, checkpointing: bool = False, kind: str = "llama") -> Any:
    from transformers import CONFIG_MAPPING

    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config).train()
    if checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its name changes from transformers 5 to 6
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return prepare_model(model)


def batch_of(tokens: int, vocab: int) -> PackedBatch:
    """One symmetric pair of so many tokens."""
    response = tokens // 5
    ids = [3 + place % (vocab - 3) for place in range(tokens)]
    pair = PreferencePair(prompt=ids[: tokens - 4 * response], chosen=ids[:response], rejected=ids[-response:])
    batch = pack_pairs([pair], conditioning="symmetric")
    assert batch.tokens == tokens
    return batch


def kept_bytes(model: nn.Module, batch: PackedBatch, *, bfloat16: bool) -> int:
    """Bytes of every storage that autograd keeps of a forward, parameters apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address would be used again
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        loss_of(model, batch)
    return sum(kept.values())


def loss_of(model: nn.Module, batch: PackedBatch) -> Tensor:
    """A loss through the head that a training uses."""

    def losses(logps: TreeLogps, pairs: slice) -> Tensor:
        return logps.get("chosen_given_rejected") - logps.get("rejected_given_chosen")

    return tree_losses(model, batch, losses, scores=batch.scores).total


@pytest.mark.parametrize(("bfloat16", "checkpointing"), FORMATS)
def test_what_autograd_keeps_of_a_token(bfloat16: bool, checkpointing: bool) -> None:
    tokens, deep = 800, ModelShape(**{**vars(SMALL), "layers": 5})
    kept = {
        shape.layers: kept_bytes(
            build(shape, checkpointing=checkpointing), batch_of(tokens, shape.vocab), bfloat16=bfloat16
        )
        for shape in (SMALL, deep)
    }
    training = Training(bfloat16=bfloat16, checkpointing=checkpointing)
    per_layer = (kept[5] - kept[2]) / 3
    predicted = {shape.layers: tokens * activation_bytes(model_of(shape), training) for shape in (SMALL, deep)}
    copies = 2 * model_of(SMALL).layer if bfloat16 and not checkpointing else 0
    assert (predicted[5] - predicted[2]) / 3 + copies == pytest.approx(per_layer, rel=0.01)
    if not checkpointing:
        assert predicted[5] + 5 * copies == pytest.approx(kept[5], rel=0.05)


@pytest.mark.parametrize("kind", ["qwen2", "mistral", "qwen3", "gemma2", "olmo2", "gpt_neox"])
def test_other_decoders_keep_about_as_much(kind: str) -> None:
    shape = ModelShape(**{**vars(SMALL), "kv_heads": 4, "gated": kind != "gpt_neox"})
    kept = kept_bytes(build(shape, kind=kind), batch_of(800, shape.vocab), bfloat16=False)
    training = Training(bfloat16=False, checkpointing=False)
    assert 800 * activation_bytes(model_of(shape, model_type=kind), training) == pytest.approx(kept, rel=0.2)


def peak_bytes(action: Callable[[], None]) -> int:
    """The most that is allocated while the action runs, above what was there: torch's allocator, event by event."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what is freed while the action runs must be its own
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        highest = max(highest, level)
    return highest


@pytest.mark.parametrize("vocab", [500, 6000])
@pytest.mark.parametrize(("bfloat16", "checkpointing"), FORMATS)
def test_the_peak_of_a_step_is_predicted_within_15_percent(bfloat16: bool, checkpointing: bool, vocab: int) -> None:
    shape = ModelShape(hidden=128, layers=4, heads=4, kv_heads=2, intermediate=384, vocab=vocab, head_dim=32)
    tokens = 1500
    model = build(shape, checkpointing=checkpointing)
    batches = [batch_of(tokens, shape.vocab)] * 2

    def step() -> None:
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = loss_of(model, batch)
            loss.backward()

    measured = peak_bytes(step)
    training = Training(bfloat16=bfloat16, checkpointing=checkpointing)
    scored = sum(int(each.lengths.sum()) for each in batches[0].scored.values())
    predicted = peak_memory(model_of(shape), training, tokens=tokens, scored=scored, on_gpu=False).parts
    # Weights are there before the step, and the optimizer and the interpreter take no part in it.
    own = sum(size for name, size in predicted.items() if name not in ("weights", "optimizer state", "runtime"))
    assert own == pytest.approx(measured, rel=0.15)


def test_limits_are_those_of_the_log_probabilities() -> None:
    assert (CHUNK_BYTES["cpu"], CHUNK_BYTES["gpu"]) == (chunks.CHUNK_BYTES["cpu"], chunks.CHUNK_BYTES["cuda"])
    assert (KEPT_BYTES["cpu"], KEPT_BYTES["gpu"]) == (fused.KEPT_BYTES["cpu"], fused.KEPT_BYTES["cuda"])


def test_parts_of_an_8b_model_by_hand() -> None:
    model, training = model_of(EIGHT), Training(bfloat16=True, checkpointing=True)
    memory = peak_memory(model, training, tokens=8192)
    assert model.parameters == 8_030_261_248
    assert memory.parts["weights"] == memory.parts["gradients"] == 4 * model.parameters
    assert memory.parts["optimizer state"] == 8 * model.parameters
    stream = 8192 * 32 * 4 * 4096  # the residual stream that recomputation starts from, float32, 32 layers
    assert stream < memory.parts["activations"] < 1.7 * stream
    assert memory.total == sum(memory.parts.values()) > memory.reference


@pytest.mark.parametrize("devices", [2, 8])
def test_engines_share_what_they_say(devices: int) -> None:
    model, training = model_of(EIGHT), Training(bfloat16=True, checkpointing=True)
    by_engine = {
        engine: peak_memory(model, training, tokens=8192, engine=engine, devices=devices) for engine in ENGINES
    }
    training_of = {engine: memory.training for engine, memory in by_engine.items()}
    assert training_of["ddp"] > training_of["single"] > training_of["zero2"] > training_of["zero3"]
    whole = by_engine["single"].reference
    assert {by_engine[engine].reference for engine in ("ddp", "zero2", "zero3")} == {whole}, "DeepSpeed comes later"
    assert by_engine["fsdp2"].reference < whole - 4 * model.parameters * (1 - 1 / devices)
    assert by_engine["zero2"].parts["optimizer state"] == 8 * model.parameters / devices
    assert by_engine["fsdp2"].parts["weights"] == 4 * model.parameters / devices
    once = peak_memory(model, training, tokens=8192, engine="fsdp2", devices=devices, accumulates=False)
    assert by_engine["fsdp2"].training - once.training == 2 * model.parameters, (
        "whole gradients lie between micro-batches"
    )


def test_optimizers_differ_by_their_state() -> None:
    model = model_of(EIGHT)
    state = {
        name: optimizer_state(model, Training(bfloat16=True, checkpointing=True, optimizer=name)) / model.parameters
        for name in ("adamw_torch", "adamw_8bit", "lion_32bit", "sgd", "adafactor")
    }
    assert state["adamw_torch"] == 8
    assert state["adamw_8bit"] == pytest.approx(2.03, abs=0.01)
    assert (state["lion_32bit"], state["sgd"]) == (4, 0)
    assert 0 < state["adafactor"] < 0.01


def test_every_optimizer_of_the_recipe_has_its_state() -> None:
    from typing import get_args

    from inspo_hub.recipe.running import Optimizer

    model = model_of(SMALL)
    for name in get_args(Optimizer):
        assert optimizer_state(model, Training(bfloat16=True, checkpointing=True, optimizer=name)) >= 0


def test_an_adapter_trains_little_and_holds_the_base_in_its_compute_format() -> None:
    model = model_of(EIGHT)
    whole = peak_memory(model, Training(bfloat16=True, checkpointing=True), tokens=8192)
    lora = peak_memory(model, Training(bfloat16=True, checkpointing=True, adapter=40_000_000), tokens=8192)
    four_bit = peak_memory(
        model, Training(bfloat16=True, checkpointing=True, adapter=40_000_000, quantized=True), tokens=8192
    )
    assert lora.parts["weights"] == 2 * model.parameters + 4 * 40_000_000
    assert lora.parts["gradients"] + lora.parts["optimizer state"] == 12 * 40_000_000
    assert four_bit.total < lora.total < whole.total / 4


def test_another_reference_counts_in_its_own_pass() -> None:
    model, training = model_of(EIGHT), Training(bfloat16=True, checkpointing=True)
    alone = peak_memory(model, training, tokens=8192)
    with_other = peak_memory(model, training, tokens=8192, other_reference=model.parameters)
    assert with_other.reference - alone.reference == 4 * model.parameters
    assert with_other.training == alone.training
