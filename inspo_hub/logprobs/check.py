"""The start-up check: a few real pairs, packed and by plain forwards; where they differ, the model is packed flat."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inspo_hub.attention import AttentionCall, AttentionShape, TreeUnsupported, record_calls
from inspo_hub.errors import TrainingError
from inspo_hub.logprobs.model import Prepared, prepare_model, prepared_state, restore_model, tree_logps
from inspo_hub.packing import Layout, context_and_response, pack_pairs, scores_of
from inspo_hub.views import SCORES, AlternativeGradient, Score

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from inspo_hub.conditioning import Conditioning
    from inspo_hub.pairs import PreferencePair

log = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Nats per scored token that packed and plain may differ by. float64 too: some models take their softmax in float32."""


@dataclass(frozen=True, kw_only=True)
class PackingCheck:
    """How a model is to be packed, and why."""

    layout: Layout
    max_abs_difference: float
    """Largest difference of a summed log-probability in nats, of the chosen layout against plain forwards."""
    reason: str
    attention: tuple[AttentionShape, ...] = ()
    """What each layer asked tree attention for; empty where rows are flat."""


def check_packing(
    model: nn.Module,
    pairs: Sequence[PreferencePair],
    conditioning: str | Conditioning | Sequence[Score] = SCORES,
    *,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
    alternative_gradient: AlternativeGradient = "full",
    tolerance: float | None = None,
) -> PackingCheck:
    """Score a few real pairs packed and by plain forwards of the untouched model, and choose the layout by that.

    Leaves the model as it found it, prepared or not.

    Args:
        pairs: a few, of different lengths; all are scored.
        alternative_gradient: `stopped` has the tree scored in two passes as well, as its training does.
        tolerance: nats per scored token; by the model's dtype (`TOLERANCE`) if not given.

    Raises:
        TrainingError: not even flat packing agrees with the model's own forward.
    """
    with _left_as_found(model) as prepared, torch.no_grad():
        comparison = _Comparison(
            model=model,
            prepared=prepared,
            pairs=pairs,
            scores=scores_of(conditioning),
            separator=separator,
            max_alternative_tokens=max_alternative_tokens,
            alternative_gradient=alternative_gradient,
            tolerance=TOLERANCE.get(_dtype(model), 1e-3) if tolerance is None else tolerance,
        )
        check = comparison.decide()
    log.log(logging.INFO if check.layout == "tree" else logging.WARNING, "packing: %s, %s", check.layout, check.reason)
    return check


@contextlib.contextmanager
def _left_as_found(model: nn.Module) -> Iterator[Prepared]:
    """The model prepared and evaluating for a while; then in its modes again, and prepared only if it was."""
    was_prepared = prepared_state(model) is not None
    training = {module: module.training for module in model.modules()}
    prepare_model(model, layout="flat")
    prepared = prepared_state(model)
    assert prepared is not None
    model.eval()
    try:
        yield prepared
    finally:
        for module, mode in training.items():
            module.training = mode
        if not was_prepared:
            restore_model(model)


def _dtype(model: nn.Module) -> torch.dtype:
    floating = [p.dtype for p in model.parameters() if p.is_floating_point()]
    kind = next(model.parameters()).device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else floating[0]


def refusal_by_rule(config: PretrainedConfig, calls: Sequence[AttentionCall]) -> str | None:
    """What short pairs cannot show: layers that did not ask, windows that were not passed, chunks longer than pairs."""
    layers = config.num_hidden_layers
    modules = {call.module for call in calls}
    if len(calls) != layers or len(modules) != layers:
        return f"tree attention ran {len(calls)} times in {len(modules)} of {layers} layers"
    kinds = getattr(config, "layer_types", None) or []
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown or getattr(config, "attention_chunk_size", None):
        return f"its layers are of kind {', '.join(unknown) or 'chunked_attention'}"
    window = getattr(config, "sliding_window", None) or 0
    expected = kinds.count("sliding_attention") if kinds else layers if window else 0
    passed = sum(call.shape.scoring.window == window > 0 for call in calls)
    if passed != expected or any(call.shape.scoring.window not in (0, window) for call in calls):
        return f"{expected} layers have a sliding window of {window}, {passed} asked for it"
    return None


@dataclass(kw_only=True)
class _Comparison:
    model: nn.Module
    prepared: Prepared
    pairs: Sequence[PreferencePair]
    scores: tuple[Score, ...]
    separator: Sequence[int]
    max_alternative_tokens: int | None
    alternative_gradient: AlternativeGradient
    tolerance: float

    def decide(self) -> PackingCheck:
        plain = {score: self._plain(score) for score in self.scores}
        name = type(self.prepared.causal_lm).__name__
        difference, refusal, shapes = self._tree(plain)
        if refusal is None:
            return PackingCheck(
                layout="tree",
                max_abs_difference=difference,
                reason=f"{name}'s packed log-probabilities equal plain forwards within {difference:.1e} nats",
                attention=shapes,
            )
        difference, per_token = self._difference("flat", plain)
        if per_token > self.tolerance:
            raise TrainingError(
                f"{name}: log-probabilities differ from plain forwards by {difference:.2e} nats, however packed",
                where="start-up check",
                expected=f"at most {self.tolerance:.0e} nats per token ({refusal})",
                fix="this architecture is not supported; report it with the model's name",
            )
        return PackingCheck(
            layout="flat",
            max_abs_difference=difference,
            reason=f"{name} cannot be packed as a tree ({refusal}); every path is a row of its own, which reads "
            "prompts again and gives the same training",
        )

    def _tree(self, plain: dict[Score, torch.Tensor]) -> tuple[float, str | None, tuple[AttentionShape, ...]]:
        """The difference of tree packing, why it cannot be used, None where it can, and what each layer asked for."""
        config = self.prepared.causal_lm.config.get_text_config()
        try:
            self.prepared.switch.require()
            with record_calls() as calls:
                difference, per_token = self._difference("tree", plain)
        except TreeUnsupported as refused:
            return float("nan"), refused.what, ()
        refusal = refusal_by_rule(config, calls)
        if refusal is None and not per_token <= self.tolerance:
            refusal = f"it differs by {difference:.2e} nats from plain forwards, {per_token:.1e} per token"
        if refusal is None and self.alternative_gradient == "stopped":
            difference, per_token = self._difference("tree", plain, alternative_gradient="stopped")
            if not per_token <= self.tolerance:
                refusal = f"with the context read first it differs by {difference:.2e} nats"
        return difference, refusal, tuple(call.shape for call in calls)

    def _difference(
        self,
        layout: Layout,
        plain: dict[Score, torch.Tensor],
        *,
        alternative_gradient: AlternativeGradient = "full",
    ) -> tuple[float, float]:
        """Largest difference of a sum in nats, and the largest per scored token."""
        batch = pack_pairs(
            self.pairs,
            self.scores,
            separator=self.separator,
            max_alternative_tokens=self.max_alternative_tokens,
            layout=layout,
            alternative_gradient=alternative_gradient,
        ).to(next(self.model.parameters()).device)
        logps = tree_logps(self.model, batch)
        differences = [(logps.get(score).double() - plain[score]).abs() for score in self.scores]
        per_token = [d / batch.scored[score].lengths for d, score in zip(differences, self.scores, strict=True)]
        return float(torch.cat(differences).max()), float(torch.cat(per_token).max())

    def _plain(self, score: Score) -> torch.Tensor:
        """One forward of the untouched model per pair, float64 `(pairs,)`."""
        device = next(self.model.parameters()).device
        logps = []
        for pair in self.pairs:
            context, response = context_and_response(pair, score, self.separator, self.max_alternative_tokens)
            logits = self._own_logits(torch.tensor([context + response], device=device), len(response) + 1)
            targets = torch.tensor(response, device=device)[:, None]
            logps.append(logits[-len(response) - 1 : -1].double().log_softmax(-1).gather(1, targets).sum())
        return torch.stack(logps)

    def _own_logits(self, input_ids: torch.Tensor, last: int) -> torch.Tensor:
        parameters = inspect.signature(type(self.prepared.causal_lm).forward).parameters
        fewer: dict[str, Any] = {"logits_to_keep": last} if "logits_to_keep" in parameters else {}
        return self.model(input_ids=input_ids, use_cache=False, **fewer).logits[0]
