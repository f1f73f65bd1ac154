"""Memory and waiting: what a step allocates, what it says when it does not fit, and when the host reads the device."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import RecipeError
from inspo_hub.logprobs import chunks, fused, prepare_model, tree_losses
from inspo_hub.logprobs.chunks import HeadTransform, token_logps
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.packing import pack_pairs
from inspo_hub.recipe import Recipe
from inspo_hub.training import trainer as trainer_module
from inspo_hub.training.arguments import training_arguments
from inspo_hub.training.memory import out_of_memory
from inspo_hub.views import SCORES, TreeLogps
from tests.architectures import Architecture, pairs_of_different_lengths
from tests.test_attention import Allocations
from tests.training.test_step import gradients, make_dataset, make_model, make_pairs, make_reference, make_trainer

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"id": "owner/model"},
    "data": {"train": [{"id": "owner/pairs"}]},
    "train": {"lr": 1e-5, "tokens_per_microbatch": 60},
}


def recipe(**train: Any) -> Recipe:
    return Recipe.model_validate_json(json.dumps(RECIPE | {"train": RECIPE["train"] | train}))


def trainer_of(folder: Path, *, rehearse: bool, objective: str = "dpo") -> tuple[Any, Any]:
    pairs, model = make_pairs(), make_model()
    chosen = OBJECTIVES[objective](name=objective)
    dataset = make_dataset(pairs, SCORES, make_reference(pairs))
    trainer = make_trainer(folder, prepare_model(model), chosen, CONDITIONINGS["symmetric"](), dataset)  # type: ignore[call-arg]
    trainer._rehearsals = 2 if rehearse else 0
    return trainer, model


# --- the largest micro-batch first ------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["dpo", "aot"])
def test_a_rehearsal_changes_no_bit_and_comes_twice(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for rehearse in (False, True):
        trainer, model = trainer_of(tmp_path / str(rehearse), rehearse=rehearse, objective=objective)
        scored: list[int] = []
        for name in ("tree_losses", "tree_logps"):
            own = getattr(trainer_module, name)

            def spy(model: Any, batch: Any, *args: Any, _own: Any = own, _seen: Any = scored, **kwargs: Any) -> Any:
                _seen.append(batch.tokens)
                return _own(model, batch, *args, **kwargs)

            monkeypatch.setattr(trainer_module, name, spy)
        steps = []
        for _ in range(3):
            model.zero_grad()
            scored.clear()
            trainer.training_step(model, trainer.parts.steps[0])
            steps.append((list(scored), gradients(model)))
        found[rehearse] = steps
        monkeypatch.undo()
        largest = trainer.parts.steps.largest_micro_batch().batch.tokens
    for number, ((plain, wanted), (rehearsed, got)) in enumerate(zip(found[False], found[True], strict=True)):
        assert rehearsed == ([largest] if number < 2 else []) + plain
        for name, gradient in wanted.items():
            assert torch.equal(got[name], gradient), name


def test_out_of_memory_says_what_to_set_and_what_it_costs() -> None:
    pairs = make_pairs(12)
    dataset = replace(make_dataset(pairs, SCORES, {}), tokens_per_microbatch=120)
    error = out_of_memory(
        recipe(tokens_per_microbatch=120), dataset, torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore")
    )
    said = str(error)
    longest = int(dataset.tokens.max())
    smaller = max(60, longest)
    now, then = (len(replace(dataset, tokens_per_microbatch=size).shares(0)[0]) for size in (120, smaller))
    assert then > now
    assert (
        f"train.tokens_per_microbatch={smaller} (the same losses; {then} micro-batches in a step instead of {now}"
        in said
    )
    assert "CUDA out of memory. Tried 2 GiB" in said
    assert "more" not in said.splitlines()[0]
    assert f"the longest pair takes {longest}" in said
    assert "train.activation_offload=true" in said
    assert "train.optimizer=adamw_8bit (2 bytes of state for each parameter instead of 8" in said
    assert error.exit_code == 4
    frugal = {"activation_offload": True, "optimizer": "adamw_8bit"}
    again = str(out_of_memory(recipe(tokens_per_microbatch=longest, **frugal), dataset, torch.OutOfMemoryError("x")))
    assert "activation_offload=true" not in again
    assert "adamw_8bit" not in again
    without = str(out_of_memory(recipe(activation_checkpointing=False), dataset, torch.OutOfMemoryError("x")))
    assert "train.activation_checkpointing=true (the same losses, about a third more time)" in without


def test_activations_go_to_the_host_where_transformers_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recompute(*, on_gpu: bool) -> Any:
        arguments: dict[str, Any] = {}
        monkeypatch.setattr("inspo_hub.training.arguments.TrainingArguments", lambda **kwargs: arguments.update(kwargs))
        monkeypatch.setattr("dataclasses.fields", lambda _class: [type("F", (), {"name": "activation_checkpointing"})])
        options = {"total_steps": 3, "bf16": False, "has_heldout": False, "on_gpu": on_gpu}
        training_arguments(recipe(activation_offload=True), tmp_path, **options)
        monkeypatch.undo()
        return arguments.get("activation_checkpointing_kwargs")

    assert recompute(on_gpu=True) == {"use_reentrant": False, "offload": True}
    assert recompute(on_gpu=False) is None
    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable")
    with pytest.raises(RecipeError, match=r"keeps no activations in the host's memory") as caught:
        training_arguments(
            recipe(activation_offload=True), tmp_path, total_steps=3, bf16=False, on_gpu=True, has_heldout=False
        )
    assert caught.value.where == "train.activation_offload"


# --- what is allocated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["full", "stopped"])
def test_no_logits_of_all_tokens_and_no_row_squared_in_the_fused_head(
    gradient: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab, rows = 2048, 16
    monkeypatch.setitem(fused.KEPT_BYTES, "cpu", 4 * vocab * rows)
    model: Any = Architecture(name="Llama", family="Llama", options={"vocab_size": vocab}).build(torch.float32).train()
    prepare_model(model)
    trained = ("chosen_given_rejected", "rejected_given_chosen")
    batch = pack_pairs(pairs_of_different_lengths() * 12, trained, alternative_gradient=gradient)
    scored = sum(len(tokens.targets) for tokens in batch.scored.values())

    def losses(logps: TreeLogps, _pairs: slice) -> torch.Tensor:
        return logps.get("rejected_given_chosen") - logps.get("chosen_given_rejected")

    with Allocations() as seen:
        tree_losses(model, batch, losses, scores=trained).total.backward()
    largest_allowed = max(rows * vocab, vocab * 32, batch.tokens * 48)
    assert scored * vocab > 8 * largest_allowed
    for shape in seen.shapes:
        assert torch.Size(shape).numel() <= largest_allowed, f"a tensor of shape {shape} was allocated"
        assert sum(size >= batch.input_ids.numel() for size in shape) <= 1, shape


def _peak_bytes(action: Any) -> int:
    """Most bytes that torch's CPU allocator held at once during the action, above what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def test_peak_bytes_per_scored_token_fall_with_the_chunk_as_computed() -> None:
    """A chunk's float32 logits are the one buffer that grows with it: rows · vocab · 4 bytes."""
    vocab, hidden_size, tokens = 4096, 32, 1024
    weight = torch.randn(vocab, hidden_size, requires_grad=True)
    hidden = torch.randn(tokens, hidden_size, requires_grad=True)
    targets = torch.randint(vocab, (tokens,))

    def step(rows: int) -> None:
        how = {"transform": HeadTransform(), "chunk_bytes": 4 * vocab * rows}
        torch.autograd.grad(token_logps(hidden, weight, None, targets, **how).sum(), (hidden, weight))  # type: ignore[arg-type]

    step(8)
    peaks = {rows: _peak_bytes(partial(step, rows)) for rows in (512, 128, 32)}
    assert peaks[512] / tokens < vocab * 4, "less than the logits of every token"
    for more, less in ((512, 128), (128, 32)):
        computed = 4 * vocab * (more - less)
        assert peaks[more] - peaks[less] == pytest.approx(computed, rel=0.15)
    assert chunks.CHUNK_BYTES["cpu"] == 2**26


# --- when the host waits ----------------------------------------------------------------------------------------------


class HostReads(TorchDispatchMode):
    """Operators whose result the host must have before it can go on: on a GPU each of them waits for the device."""

    WAIT = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.WAIT:
            self.reads.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("budget", [60, 10_000])
def test_a_step_reads_the_device_once_and_only_when_it_logs(budget: int, tmp_path: Path) -> None:
    trainer, model = trainer_of(tmp_path, rehearse=False)
    trainer.parts = replace(trainer.parts, steps=replace(trainer.parts.steps, tokens_per_microbatch=budget))
    trainer.args.logging_steps = 3
    trainer.state.max_steps = 10
    look = trainer._stop_if_not_finite
    # What a GPU's run does: a CPU has nothing to wait for and looks after every step.
    trainer._stop_if_not_finite = lambda *, always: look(always=False)
    counts = {}
    for step in range(6):
        trainer.state.global_step = step
        share = trainer.parts.steps[0]
        with HostReads() as seen:
            trainer.training_step(model, share)
        counts[step + 1] = seen.reads
    assert {step: reads for step, reads in counts.items() if reads} == {3: ["nonzero"], 6: ["nonzero"]}
