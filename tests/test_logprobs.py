"""Packed log-probabilities in every surrounding they must survive, against plain forwards of the untouched model."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from inspo_hub.attention import TreeUnsupported
from inspo_hub.errors import TrainingError
from inspo_hub.logprobs import (
    check_packing,
    chunks,
    prepare_model,
    prepared_state,
    restore_model,
    tree_logps,
    tree_losses,
)
from inspo_hub.logprobs.chunks import HeadTransform, token_logps
from inspo_hub.logprobs.rope import rope_switch
from inspo_hub.packing import PackedBatch, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score
from tests.architectures import TREE, VOCAB, Architecture, pairs_of_different_lengths
from tests.oracle import plain_logps
from tests.test_attention import Allocations

CONDITIONED: tuple[Score, ...] = ("chosen_given_rejected", "rejected_given_chosen")
SEPARATOR = (3, 4)
LAYOUTS = pytest.mark.parametrize("layout", ["tree", "flat"])
# peft 0.21 asks transformers 5.23 for a property under its old name.
PEFT_NOISE = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
LLAMA = Architecture(name="Llama", family="Llama", options={"num_hidden_layers": 3})


def batch_of(layout: Any = "tree", scores: Any = SCORES) -> PackedBatch:
    return pack_pairs(pairs_of_different_lengths(), scores, separator=SEPARATOR, layout=layout)


def total(logps: Any, scores: Any = SCORES) -> Tensor:
    """A weighted sum of every log-probability, so that no two of them can be exchanged unnoticed."""
    values = [logps[s] if isinstance(logps, dict) else logps.get(s) for s in scores]
    weights = torch.linspace(0.5, 1.5, sum(len(v) for v in values), dtype=torch.float64)
    return (torch.cat(values) * weights).sum()


def expected(model: nn.Module, scores: Any = SCORES) -> tuple[dict[Score, Tensor], dict[str, Tensor]]:
    """The oracle's log-probabilities and the gradients of their `total`, by parameter name."""
    logps = plain_logps(model, pairs_of_different_lengths(), scores, separator=SEPARATOR)
    model.zero_grad()
    total(logps, scores).backward()
    return {s: v.detach() for s, v in logps.items()}, gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_equal(
    model: nn.Module, batch: PackedBatch, oracle: tuple[dict[Score, Tensor], dict[str, Tensor]], scores: Any = SCORES
) -> None:
    logps, wanted = oracle
    actual = tree_logps(model, batch, scores=scores)
    for score in scores:
        torch.testing.assert_close(actual.get(score), logps[score], rtol=1e-12, atol=1e-11)
    total(actual, scores).backward()
    got = gradients(model)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        # 1e-7: the model's own norms are computed in float32.
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=5e-7 * float(gradient.abs().max()))


def checkpoint_activations(model: Any, *, reentrant: bool = False) -> None:
    """Gradient checkpointing, under the name that this version of transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})


# --- the chunked head ----------------------------------------------------------------------------------------------

TRANSFORMS = {
    "plain": HeadTransform(),
    "scaled": HeadTransform(scale=0.3),
    "capped": HeadTransform(softcap=2.0),
    "both": HeadTransform(scale=1.7, softcap=3.0),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_chunks_equal_their_one_line(transform: HeadTransform, rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    b = torch.randn(50, dtype=torch.float64) if bias else None
    inputs = [x.requires_grad_() for x in (hidden, weight, b) if x is not None]
    targets, grad = torch.randint(0, 50, (23,)), torch.randn(23, dtype=torch.float64)
    plain = hidden @ weight.mT if b is None else hidden @ weight.mT + b
    line = transform(plain).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    actual = token_logps(hidden, weight, b, targets, transform=transform, chunk_bytes=rows * 50 * 4)
    torch.testing.assert_close(actual, line, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(line, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_a_frozen_head_gets_no_gradient_and_passes_one_on() -> None:
    hidden, weight = torch.randn(5, 8, requires_grad=True), torch.randn(50, 8)
    logps = token_logps(hidden, weight, None, torch.arange(5), transform=HeadTransform())
    logps.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_half_precision_head_accumulates_its_gradient_in_float32() -> None:
    """A thousand equal rows: their sum in bfloat16 would stop growing at 256 of them."""
    hidden = torch.ones(1000, 4, dtype=torch.bfloat16)
    weight = torch.zeros(8, 4, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(1000, dtype=torch.int64)
    logps = token_logps(hidden, weight, None, targets, transform=HeadTransform(), chunk_bytes=8 * 4)
    assert logps.dtype == torch.float32
    logps.sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0].float(), torch.full((4,), 875.0), rtol=4e-3, atol=0)


def test_autocast_scores_in_its_dtype_and_sums_in_float32() -> None:
    model = LLAMA.build(torch.float32)
    exact = plain_logps(model, pairs_of_different_lengths(), SCORES, separator=SEPARATOR)
    with torch.autocast("cpu", torch.bfloat16):
        logps = tree_logps(model, batch_of())
    total(logps).backward()
    for score in SCORES:
        assert logps.get(score).dtype == torch.float32
        torch.testing.assert_close(logps.get(score), exact[score], rtol=0.03, atol=0.3)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@LAYOUTS
def test_results_are_float32_for_ordinary_models(layout: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        logps = tree_logps(LLAMA.build(dtype), batch_of(layout))
        assert {logps.get(score).dtype for score in SCORES} == {torch.float32}


# --- which scores --------------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("scores", [("chosen",), ("chosen", "rejected"), CONDITIONED, SCORES], ids="+".join)
def test_only_the_asked_scores_are_computed(layout: Any, scores: Any) -> None:
    model = LLAMA.build()
    oracle = expected(model, scores)
    assert_equal(model, batch_of(layout, scores), oracle, scores)
    logps = tree_logps(model, batch_of(layout), scores=scores)
    assert [score for score in SCORES if getattr(logps, score) is not None] == [s for s in SCORES if s in scores]


@LAYOUTS
def test_scores_without_gradient_have_the_value_and_no_gradient(layout: Any) -> None:
    model = LLAMA.build()
    values, _ = expected(model)
    _, wanted = expected(model, CONDITIONED)
    logps = tree_logps(model, batch_of(layout), scores=CONDITIONED, no_grad_scores=("chosen", "rejected"))
    for score in SCORES:
        torch.testing.assert_close(logps.get(score), values[score], rtol=1e-12, atol=1e-11)
        assert logps.get(score).requires_grad == (score in CONDITIONED)
    total(logps, CONDITIONED).backward()
    got = gradients(model)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=5e-7 * float(gradient.abs().max()))


def test_a_score_that_is_not_laid_out_is_an_error() -> None:
    with pytest.raises(AssertionError, match="chosen_given_rejected"):
        tree_logps(LLAMA.build(), batch_of(scores=("chosen",)), scores=("chosen_given_rejected",))


# --- one model, other calls ----------------------------------------------------------------------------------------


def test_a_prepared_model_is_otherwise_the_model_it_was() -> None:
    model = LLAMA.build()
    tokens = torch.arange(3, 15)[None]
    mask = torch.ones_like(tokens)
    logits = model(tokens).logits
    generated = model.generate(tokens, attention_mask=mask, max_new_tokens=8, do_sample=False)
    prepare_model(model)
    tree_logps(model, batch_of())
    assert torch.equal(model(tokens).logits, logits)
    assert torch.equal(model.generate(tokens, attention_mask=mask, max_new_tokens=8, do_sample=False), generated)
    assert model.lm_head(torch.ones(1, 32, dtype=torch.float64)).shape == (1, VOCAB)
    restore_model(model)
    assert prepared_state(model) is None
    assert "forward" not in vars(model)
    assert "forward" not in vars(model.lm_head)
    assert torch.equal(model(tokens).logits, logits)


def test_a_call_between_forward_and_backward_disturbs_neither() -> None:
    model = LLAMA.build()
    oracle = expected(model)
    checkpoint_activations(model)
    model.train()
    logps = tree_logps(model, batch_of())
    with torch.no_grad():
        model.generate(torch.arange(3, 9)[None], max_new_tokens=2, do_sample=False, pad_token_id=0)
    total(logps).backward()
    got = gradients(model)
    for name, gradient in oracle[1].items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=5e-7 * float(gradient.abs().max()))


def test_the_saved_config_does_not_know_of_the_tree(tmp_path: Path) -> None:
    model = LLAMA.build(torch.float32)
    tree_logps(model, batch_of())
    model.save_pretrained(tmp_path)
    assert "inspo_tree" not in (tmp_path / "config.json").read_text()
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(3, 15)[None]
    assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_preparing_twice_and_copying_are_harmless() -> None:
    model = LLAMA.build()
    oracle = expected(model)
    prepare_model(prepare_model(model))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert_equal(twin, batch_of(), oracle)


def test_tree_and_flat_batches_may_alternate() -> None:
    model = LLAMA.build()
    oracle = expected(model)
    for layout in ("tree", "flat", "tree"):
        assert_equal(model, batch_of(layout), oracle)


def test_attention_dropout_is_refused_by_name() -> None:
    model = Architecture(name="Llama", family="Llama", options={"attention_dropout": 0.1}).build()
    model.train()
    with pytest.raises(TreeUnsupported, match=r"attention dropout is 0\.1, expected 0"):
        tree_logps(model, batch_of())


def test_a_prepared_model_without_its_layout_is_refused_by_name() -> None:
    model = LLAMA.build()
    prepared = prepare_model(model)
    state = prepared_state(prepared)
    assert state is not None
    with state.switch.using(tree=True), pytest.raises(TreeUnsupported, match="the layout did not reach"):
        model.model(torch.arange(3, 9)[None])


# --- surroundings --------------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_exact(layout: Any, reentrant: bool) -> None:
    model = LLAMA.build()
    oracle = expected(model)
    checkpoint_activations(model, reentrant=reentrant)
    model.enable_input_require_grads()
    model.train()
    assert_equal(model, batch_of(layout), oracle)


@LAYOUTS
@pytest.mark.parametrize("tied", [False, True])
def test_tied_embeddings_get_both_gradients(layout: Any, tied: bool) -> None:
    model = Architecture(name="Llama", family="Llama", options={"tie_word_embeddings": tied}).build()
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert_equal(model, batch_of(layout), expected(model))


@PEFT_NOISE
def test_lora_is_exact_and_its_reference_is_the_adapter_switched_off() -> None:
    peft = pytest.importorskip("peft")
    base = LLAMA.build()
    reference, _ = expected(base)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(base, config).double()
    oracle = expected(model)
    assert_equal(model, batch_of(), oracle)
    with torch.no_grad(), model.disable_adapter():
        logps = tree_logps(model, batch_of())
    for score in SCORES:
        torch.testing.assert_close(logps.get(score), reference[score], rtol=1e-12, atol=1e-11)


@PEFT_NOISE
def test_an_adapter_on_the_head_goes_through_the_heads_own_code() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model = peft.get_peft_model(LLAMA.build(), config).double()
    assert_equal(model, batch_of(), expected(model))
    assert prepared_state(model).head.transform is None  # type: ignore[union-attr]


@pytest.fixture
def one_process(tmp_path: Path) -> Any:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@LAYOUTS
def test_ddp_is_exact(layout: Any, one_process: None) -> None:
    model = LLAMA.build()
    oracle = expected(model)
    wrapped = nn.parallel.DistributedDataParallel(prepare_model(model))
    logps = tree_logps(wrapped, batch_of(layout))
    total(logps).backward()
    got = gradients(model)
    for name, gradient in oracle[1].items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=5e-7 * float(gradient.abs().max()))


@LAYOUTS
@pytest.mark.parametrize("tied", [False, True])
def test_fsdp2_is_exact(layout: Any, tied: bool, one_process: None) -> None:
    from torch.distributed.fsdp import fully_shard

    model = Architecture(name="Llama", family="Llama", options={"tie_word_embeddings": tied}).build()
    oracle = expected(model)
    prepare_model(model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    total(tree_logps(model, batch_of(layout))).backward()
    for name, parameter in model.named_parameters():
        gradient = oracle[1][name]
        got = parameter.grad.full_tensor()  # type: ignore[union-attr]
        torch.testing.assert_close(got, gradient, rtol=0, atol=5e-7 * float(gradient.abs().max()))


def test_accelerate_keeps_the_patched_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate = pytest.importorskip("accelerate")
    monkeypatch.setattr(accelerate.state.AcceleratorState, "_shared_state", {})  # what another test chose is its own
    model = LLAMA.build(torch.float32)
    exact = plain_logps(model, pairs_of_different_lengths(), SCORES, separator=SEPARATOR)
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    prepared = accelerator.prepare(prepare_model(model))
    logps = tree_logps(prepared, batch_of())
    for score in SCORES:
        torch.testing.assert_close(logps.get(score), exact[score].detach(), rtol=0.03, atol=0.3)
    accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    logps = tree_logps(model, batch_of())
    for score in SCORES:
        torch.testing.assert_close(logps.get(score), exact[score].detach(), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [TREE[0], TREE[2]], ids=lambda a: a.name)
def test_a_compiled_body_serves_every_layout_without_a_break(architecture: Architecture) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model = architecture.build()
    counter = CompileCounterWithBackend("aot_eager")
    pairs = pairs_of_different_lengths() + pairs_of_different_lengths(seed=1)
    batches = [
        pack_pairs(some, SCORES, separator=SEPARATOR, max_alternative_tokens=limit)
        for some, limit in ((pairs[:2], None), (pairs[1:], 4), (pairs[:5], None), (pairs[2:4], 2))
    ]
    plain = [tree_logps(model, batch) for batch in batches]
    wanted = []
    for logps in plain:
        total(logps).backward()
        wanted.append(gradients(model))
    frames = []
    model.model.compile(backend=counter, fullgraph=True, dynamic=True)
    for batch, before, gradient in zip(batches, plain, wanted, strict=True):
        logps = tree_logps(model, batch)
        for score in SCORES:
            torch.testing.assert_close(logps.get(score), before.get(score), rtol=1e-12, atol=1e-11)
        total(logps).backward()
        for name, got in gradients(model).items():
            torch.testing.assert_close(got, gradient[name], rtol=0, atol=5e-7 * float(gradient[name].abs().max()))
        frames.append(counter.frame_count)
    assert len(set(frames)) == 1, "a layout made the body compile again"
    assert len([graph for graph in counter.graphs if len(graph.graph.nodes)]) == 1, "a graph break"
    torch._dynamo.reset()


@pytest.mark.parametrize("gradient", ["full", "stopped"])
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
def test_a_step_mixes_no_devices_and_reads_none(gradient: Any, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device that has shapes and no values: whatever a GPU would have to wait for, or copy by itself, fails."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _kind: False)  # it does not know this device
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: contextlib.nullcontext())
    model = prepare_model(LLAMA.build(torch.bfloat16)).to("meta")
    pairs = pairs_of_different_lengths()
    batch = pack_pairs(pairs, SCORES, separator=SEPARATOR, alternative_gradient=gradient).to("meta")
    if fused:
        tree_losses(
            model,
            batch,
            lambda logps, _pairs: logps.get("rejected_given_chosen") - logps.get("chosen_given_rejected"),
            scores=CONDITIONED,
            no_grad_scores=("chosen", "rejected"),
        ).total.backward()
    else:
        logps = [value for value in vars(tree_logps(model, batch)).values() if value.requires_grad]
        torch.cat(logps).sum().backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


# --- heads that no table knows -------------------------------------------------------------------------------------


class _Changed(LlamaForCausalLM):
    """A Llama whose forward does something to its logits, or to what the head reads."""

    change: Callable[[Tensor], Tensor] = staticmethod(lambda logits: logits)
    change_hidden: Callable[[Tensor], Tensor] = staticmethod(lambda hidden: hidden)

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        kwargs.pop("logits_to_keep", None)
        hidden = self.model(input_ids=input_ids, **kwargs).last_hidden_state
        logits = self.change(self.lm_head(self.change_hidden(hidden)))
        return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits)


def changed(**changes: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    base = Architecture(name="Llama", family="Llama", options={"vocab_size": VOCAB + 6}).build()
    model = _Changed(base.config).double().eval()
    model.load_state_dict(base.state_dict())
    for name, change in changes.items():
        setattr(model, name, change)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"change": lambda logits: logits + 0.1 * logits**3},
        {"change": lambda logits: logits[..., :VOCAB] * 1.5},
        {"change_hidden": lambda hidden: hidden * 1.7},
    ],
    ids=["cubic", "fewer tokens", "scaled hidden states"],
)
@LAYOUTS
def test_an_unknown_transform_is_computed_by_the_models_own_code(changes: Any, layout: Any) -> None:
    model = changed(**changes)
    oracle = expected(model)
    assert_equal(model, batch_of(layout), oracle)
    state = prepared_state(model)
    assert state is not None
    assert state.head.transform is None
    assert check_packing(model, pairs_of_different_lengths(), separator=SEPARATOR).layout == "tree"


@pytest.mark.parametrize("name", ["Granite (scaled logits)", "Cohere (scaled logits)", "Gemma2 (window, soft-caps)"])
def test_known_transforms_are_recognised(name: str) -> None:
    model = next(a for a in TREE if a.name == name).build()
    state = prepared_state(prepare_model(model))
    assert state is not None
    transform = state.head.transform
    assert transform is not None
    assert (transform.scale, transform.softcap) == {
        "Granite (scaled logits)": (1 / 3.0, 0.0),
        "Cohere (scaled logits)": (0.25, 0.0),
        "Gemma2 (window, soft-caps)": (1.0, 30.0),
    }[name]


def test_a_model_that_looks_ahead_is_refused_with_numbers() -> None:
    """Neither layout can be right for a model that is not causal: it says so and what it measured."""
    model = changed(change_hidden=lambda hidden: hidden + hidden.flip(1))
    with pytest.raises(TrainingError) as refused:
        check_packing(model, pairs_of_different_lengths(), separator=SEPARATOR)
    assert "log-probabilities differ from plain forwards by" in str(refused.value)
    assert "nats per token" in refused.value.expected
    assert prepared_state(model) is None


def test_the_check_leaves_the_model_as_it_found_it() -> None:
    model = LLAMA.build()
    model.train()
    check_packing(model, pairs_of_different_lengths())
    assert model.training
    assert prepared_state(model) is None
    prepare_model(model)
    check_packing(model, pairs_of_different_lengths())
    assert prepared_state(model) is not None


# --- rotary embeddings that depend on the batch ----------------------------------------------------------------------

_FACTORS = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
_LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, **_FACTORS}


def test_original_length_of_dynamic_rotary_embeddings() -> None:
    assert rope_switch(LLAMA.build().config) is None
    long = LlamaConfig(**{**LLAMA.base, "rope_parameters": _LONGROPE})
    assert rope_switch(long) == 64
    dynamic = LlamaConfig(
        **{**LLAMA.base, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
    )
    assert rope_switch(dynamic) == LLAMA.base["max_position_embeddings"]


def test_paths_beyond_the_original_length_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Architecture(name="long", family="Llama", options={"rope_parameters": _LONGROPE}).build()
    short = batch_of()
    assert short.longest_path <= 64
    assert_equal(model, short, expected(model))
    assert not caplog.records
    longer = [*pairs_of_different_lengths(), PreferencePair(prompt=[5] * 80, chosen=[6, 7], rejected=[8])]
    exact = plain_logps(model, longer, SCORES)
    batch = pack_pairs(longer, SCORES)
    logps = [tree_logps(model, batch).get("chosen") for _ in range(2)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a path of 83 tokens is beyond 64" in caplog.text
    # The long pair is right; what the warning speaks of are the short ones beside it.
    torch.testing.assert_close(logps[0][-1], exact["chosen"][-1], rtol=1e-12, atol=1e-11)
    assert (logps[0] - exact["chosen"])[:-1].abs().max() > 1e-3


# --- memory --------------------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_logits_of_all_tokens_and_no_row_squared(
    layout: Any, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab, rows = 2048, 16
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 4 * vocab * rows)
    config = LlamaConfig(**{**LLAMA.base, "vocab_size": vocab, "max_position_embeddings": 2048})
    model = LlamaForCausalLM(config)
    prepare_model(model)
    if checkpointing:
        checkpoint_activations(model)
        model.train()
    pairs = [copy.copy(p) for p in pairs_of_different_lengths() * 12]
    batch = pack_pairs(pairs, SCORES, layout=layout)
    scored = sum(len(tokens.targets) for tokens in batch.scored.values())
    largest_allowed = max(rows * vocab, vocab * 32, batch.input_ids.numel() * LLAMA.base["intermediate_size"])
    assert scored * vocab > 10 * largest_allowed
    with Allocations() as seen:
        sum(v.sum() for v in vars(tree_logps(model, batch)).values()).backward()
    longest = batch.input_ids.numel()
    for shape in seen.shapes:
        assert torch.Size(shape).numel() <= largest_allowed, f"a tensor of shape {shape} was allocated"
        assert sum(size >= longest for size in shape) <= 1 or layout == "flat", shape


def test_the_config_of_a_checked_model_is_serialisable() -> None:
    model = LLAMA.build()
    check_packing(model, pairs_of_different_lengths())
    assert "inspo" not in json.dumps(model.config.to_dict(), default=str)
