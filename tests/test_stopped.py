"""`alternative.gradient: stopped`: equal scores, and the gradients of a model that detaches its context.

The oracle is a plain forward per path under an attention function of its own, in float64: keys and values of prompt,
alternative and separator are detached in every layer, and nothing else is changed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from inspo_hub.attention import ContextKeys
from inspo_hub.attention.context import LayerContext
from inspo_hub.attention.operator import _detached
from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import TrainingError
from inspo_hub.logprobs import check_packing, prepare_model, tree_logps, tree_losses
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.packing import pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score, TreeLogps
from tests.architectures import TREE, Architecture, pairs_of_different_lengths
from tests.oracle import path_of, plain_logps
from tests.test_logprobs import PEFT_NOISE, checkpoint_activations, one_process
from tests.training.test_step import SEPARATOR as STEP_SEPARATOR
from tests.training.test_step import make_dataset, make_model, make_pairs, make_reference, make_trainer

__all__ = ["one_process"]  # a fixture

CONDITIONED: tuple[Score, ...] = ("chosen_given_rejected", "rejected_given_chosen")
SEPARATOR = (3, 4)
NAMES = (
    "Llama",
    "Mistral (window)",
    "Qwen3",
    "Gemma2 (window, soft-caps)",
    "Gemma3 (window)",
    "GPT-2",
    "GPT-OSS (sinks, window)",
    "Qwen2-MoE",
    "DeepSeek-V3 (latent attention)",
)
ARCHITECTURES = [architecture for architecture in TREE if architecture.name in NAMES]
LLAMA = TREE[0]
by_name = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
# Where a model itself leaves float64 on its way, as in test_architectures.
FLOAT32_INSIDE = {"Gemma2 (window, soft-caps)": 1e-5, "DeepSeek-V3 (latent attention)": 1e-6}

# --- the oracle -------------------------------------------------------------------------------------------------------

_context = [0]
"""Tokens of the running sequence's context."""


def _detaching(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Any,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention from its definition, with the context's keys and values detached."""
    n = _context[0]
    key, value = (torch.cat([x[:, :, :n].detach(), x[:, :, n:]], dim=2) for x in (key, value))
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.mT * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    step = torch.arange(query.shape[2])
    behind = step[:, None] - step
    sees = (behind >= 0) & (behind < sliding_window) if sliding_window else behind >= 0
    scores = scores.masked_fill(~sees, -torch.inf)
    if s_aux is not None:
        scores = torch.cat([scores, s_aux[None, :, None, None].expand(1, -1, scores.shape[2], 1)], dim=-1)
    return (scores.softmax(-1)[..., : key.shape[2]] @ value).transpose(1, 2), None


AttentionInterface.register("oracle_detaching", _detaching)


def oracle_of(model: Any) -> Any:
    """A copy of a model under the oracle's attention."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("oracle_detaching")
    return twin


def detached_logps(model: Any, pairs: Sequence[PreferencePair], scores: Sequence[Score], **how: Any) -> list[Tensor]:
    """Each score's log-probabilities `(pairs,)`, one forward per path."""
    result = []
    for score in scores:
        sums = []
        for pair in pairs:
            context, response = path_of(pair, score, **how)
            _context[0] = len(context)
            logits = model(input_ids=torch.tensor([context + response]), use_cache=False).logits[0]
            steps = torch.arange(len(context) - 1, len(context) + len(response) - 1)
            sums.append(logits.double().log_softmax(-1)[steps, torch.tensor(response)].sum())
        result.append(torch.stack(sums))
    return result


def weighted(values: Sequence[Tensor]) -> Tensor:
    """A sum in which no two log-probabilities can be exchanged unnoticed."""
    flat = torch.cat(list(values)).double()
    return (flat * torch.linspace(0.5, 1.5, len(flat), dtype=torch.float64)).sum()


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found, strict=True)}


def assert_close(actual: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        scale = max(float(gradient.abs().max()), 1e-6 * largest)
        assert float((actual[name] - gradient).abs().max()) <= tolerance * scale, name


def stopped_batch(scores: Sequence[Score] = SCORES, pairs: Sequence[PreferencePair] | None = None, **how: Any) -> Any:
    pairs = pairs_of_different_lengths() if pairs is None else pairs
    return pack_pairs(pairs, tuple(scores), alternative_gradient="stopped", **({"separator": SEPARATOR} | how))


# --- scores and gradients ---------------------------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize(("separator", "limit"), [(SEPARATOR, None), ((), 3), ((), None)], ids=str)
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_scores_are_plain_and_gradients_the_detaching_oracles(
    architecture: Architecture, separator: Any, limit: int | None
) -> None:
    model, pairs = architecture.build(), pairs_of_different_lengths()
    how: dict[str, Any] = {"separator": separator, "max_alternative_tokens": limit}
    tolerance = FLOAT32_INSIDE.get(architecture.name, 1e-11)
    exact = plain_logps(model, pairs, SCORES, **how)
    oracle = oracle_of(model)
    expected = detached_logps(oracle, pairs, CONDITIONED, **how)
    for score, value in zip(CONDITIONED, expected, strict=True):
        torch.testing.assert_close(value, exact[score].double(), rtol=0, atol=10 * tolerance)
    wanted = gradients(weighted(expected), oracle)
    logps = tree_logps(model, stopped_batch(**how))
    for score in SCORES:
        torch.testing.assert_close(logps.get(score), exact[score], rtol=0, atol=tolerance)
    assert not logps.get("chosen").requires_grad
    actual = gradients(weighted([logps.get(score) for score in CONDITIONED]), model)
    assert_close(actual, wanted, 1e-4 if tolerance > 1e-11 else 1e-6)


@pytest.mark.parametrize(
    "scores", [CONDITIONED, ("rejected_given_chosen",), ("chosen", "chosen_given_rejected")], ids="+".join
)
@pytest.mark.parametrize("fused", [False, True])
def test_any_scores_fused_or_not(scores: tuple[Score, ...], fused: bool) -> None:
    model, pairs = LLAMA.build(), pairs_of_different_lengths()
    trained = tuple(score for score in scores if score in CONDITIONED)
    oracle = oracle_of(model)
    expected = detached_logps(oracle, pairs, trained, separator=SEPARATOR)
    wanted = gradients(sum(value.sum() for value in expected), oracle)  # type: ignore[arg-type]
    batch = stopped_batch(scores)
    if fused:
        plain = tuple(score for score in scores if score not in trained)

        def losses(logps: TreeLogps, _pairs: slice) -> Tensor:
            return torch.stack([logps.get(score) for score in trained]).sum(0)

        result = tree_losses(model, batch, losses, scores=trained, no_grad_scores=plain)
        loss, logps = result.total, result.logps
    else:
        logps = tree_logps(model, batch)
        loss = sum(logps.get(score).sum() for score in trained)  # type: ignore[assignment]
    exact = plain_logps(model, pairs, scores, separator=SEPARATOR)
    for score in scores:
        torch.testing.assert_close(logps.get(score).detach(), exact[score].detach(), rtol=0, atol=1e-11)
    assert_close(gradients(loss, model), wanted)


def test_a_loss_of_plain_scores_is_a_programmers_error() -> None:
    model = LLAMA.build()
    with pytest.raises(AssertionError, match="no loss is made of them"):
        tree_losses(model, stopped_batch(), lambda logps, _pairs: logps.get("chosen"), scores=SCORES)
    with pytest.raises(AssertionError, match="tree packing only"):
        stopped_batch(layout="flat")


def test_gradient_checkpointing_reads_the_context_again() -> None:
    model = LLAMA.build()
    wanted = gradients(weighted([tree_logps(model, stopped_batch()).get(score) for score in CONDITIONED]), model)
    checkpoint_activations(model)
    model.train()
    model.zero_grad()
    weighted([tree_logps(model, stopped_batch()).get(score) for score in CONDITIONED]).backward()
    assert_close({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, wanted)


@PEFT_NOISE
def test_an_adapter_learns_as_the_oracles_does() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(LLAMA.build(), config).double()
    oracle = oracle_of(model)
    pairs = pairs_of_different_lengths()
    wanted = weighted(detached_logps(oracle, pairs, CONDITIONED, separator=SEPARATOR))
    names = [name for name, p in oracle.named_parameters() if p.requires_grad]
    wanted_gradients = torch.autograd.grad(wanted, [p for p in oracle.parameters() if p.requires_grad])
    logps = tree_logps(model, stopped_batch())
    actual = torch.autograd.grad(
        weighted([logps.get(score) for score in CONDITIONED]), [p for p in model.parameters() if p.requires_grad]
    )
    assert_close(dict(zip(names, actual, strict=True)), dict(zip(names, wanted_gradients, strict=True)))


def test_fsdp2_runs_its_layers_twice(one_process: None) -> None:
    from torch.distributed.fsdp import fully_shard

    model = LLAMA.build()
    wanted = gradients(weighted([tree_logps(model, stopped_batch()).get(score) for score in CONDITIONED]), model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    weighted([tree_logps(model, stopped_batch()).get(score) for score in CONDITIONED]).backward()
    assert_close({name: p.grad.full_tensor() for name, p in model.named_parameters()}, wanted)  # type: ignore[union-attr]


@pytest.mark.parametrize("objective", ["dpo", "simpo", "aot"])
def test_a_training_step_is_the_oracles(objective: str, tmp_path: Path) -> None:
    """Micro-batches, fused head or coupled pairs, the trainer's scaling; plain metrics are logged all the same."""
    pairs, model = make_pairs(), make_model()
    chosen, condition = OBJECTIVES[objective](name=objective), CONDITIONINGS["symmetric"]()  # type: ignore[call-arg]
    reference = make_reference(pairs) if chosen.uses_reference else {}
    dataset = replace(
        make_dataset(pairs, SCORES, reference),
        pack=lambda rows: stopped_batch(pairs=[pairs[row] for row in rows], separator=STEP_SEPARATOR),
    )
    oracle = oracle_of(model)
    trainer = make_trainer(tmp_path, prepare_model(model), chosen, condition, dataset)
    model.zero_grad()
    loss = trainer.training_step(model, dataset[0])
    values = detached_logps(oracle, pairs, CONDITIONED, separator=STEP_SEPARATOR)
    policy = TreeLogps(**dict(zip(CONDITIONED, (value.float() for value in values), strict=True)))
    known = TreeLogps(**{score: torch.tensor(each).float() for score, each in reference.items()}) if reference else None
    lengths = SimpleNamespace(
        chosen_lengths=torch.tensor([len(pair.chosen) for pair in pairs]),
        rejected_lengths=torch.tensor([len(pair.rejected) for pair in pairs]),
    )
    expected = trainer.parts.losses(policy, known, lengths, 0.0).mean()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    actual = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_close(actual, gradients(expected, oracle), 1e-3)
    metrics = trainer.train_metrics.reduce(trainer.accelerator)
    exact = plain_logps(oracle_of(oracle), pairs, ("chosen",), separator=STEP_SEPARATOR)["chosen"]
    per_token = float(exact.sum().detach() / lengths.chosen_lengths.sum())
    assert metrics["plain_logp_per_token_chosen"] == pytest.approx(per_token, rel=1e-5)


def test_where_frequencies_change_two_passes_are_refused() -> None:
    options = {
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        "max_position_embeddings": 64,
    }
    model = Architecture(name="Llama", family="Llama", options=options).build()
    long = [PreferencePair(prompt=[5] * 80, chosen=[6, 7], rejected=[8])]
    with pytest.raises(TrainingError, match="beyond 64") as caught:
        tree_logps(model, stopped_batch(pairs=long))
    assert caught.value.where == "alternative.gradient"
    assert "data.max_length: 64" in str(caught.value)


def test_the_start_up_check_scores_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = LLAMA.build(), pairs_of_different_lengths()
    how: dict[str, Any] = {"separator": SEPARATOR, "alternative_gradient": "stopped"}
    assert check_packing(model, pairs, **how).layout == "tree"
    monkeypatch.setattr(ContextKeys, "read", lambda self, layer: LayerContext(*_shuffled(self, layer)))
    check = check_packing(model, pairs, **how)
    assert check.layout == "flat"
    assert "with the context read first it differs" in check.reason


def _shuffled(keys: ContextKeys, layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    key, value = keys._layers[id(layer)]
    return key.flip(2), value, keys.stopped


def test_what_flex_attention_would_differentiate_is_detached() -> None:
    key, value = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(2))
    context = LayerContext(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4), torch.tensor([0, 3]))
    keys, values = _detached(key, value, context)
    torch.testing.assert_close(keys, torch.cat([context.key, key], 2))
    d_key, d_value = torch.autograd.grad(keys.sum() + 2 * values.sum(), (key, value))
    expected = torch.tensor([0.0, 1, 1, 0, 1])[None, None, :, None].expand(1, 2, 5, 4)
    assert torch.equal(d_key, expected)
    assert torch.equal(d_value, 2 * expected)


# --- what it saves ----------------------------------------------------------------------------------------------------


class Kept:
    """Bytes of the storages that autograd keeps for the backward, parameters not counted."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.storages: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.parameters:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __enter__(self) -> Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_at_most_0_55_of_the_full_gradients(checkpointing: bool) -> None:
    """On the mean lengths of UltraFeedback, a tenth of them; what is kept of the context are keys and values."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randint(3, 512, (n,), generator=generator).tolist() for n in (18, 36, 36) * 4]
    pairs = [PreferencePair(*parts[k : k + 3], row_id=str(k)) for k in range(0, len(parts), 3)]
    options = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 512}
    model = Architecture(name="Llama", family="Llama", options=options).build(torch.float32).train()
    if checkpointing:
        checkpoint_activations(model)
    kept = {}
    for gradient in ("full", "stopped"):
        batch = pack_pairs(pairs, CONDITIONED, alternative_gradient=gradient)  # type: ignore[arg-type]
        with Kept(model) as seen:
            logps = tree_logps(model, batch)
        kept[gradient] = seen.bytes
        del logps
    assert 0.3 < kept["stopped"] / kept["full"] <= 0.55, kept
