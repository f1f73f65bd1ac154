"""The language-model head of any architecture: a matrix and a transform, or the model's own code where unknown."""

from __future__ import annotations

import contextlib
import itertools
import logging
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from inspo_hub.errors import TrainingError
from inspo_hub.logprobs.chunks import CHUNK_BYTES, HeadTransform, token_logps
from inspo_hub.logprobs.fused import ScoredPairs, loss_and_logps

logger = logging.getLogger(__name__)

_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "final_logit_softcap")
# A transform is believed when it gives the model's own logits this well, relative to the largest of them.
_PROBE_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
_PROBE_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class Head:
    """How token log-probabilities are made of hidden states."""

    model: PreTrainedModel
    """The causal language model, adapters in place, without what wraps it."""
    body: nn.Module
    """The part of the model whose output the head reads."""
    transform: HeadTransform | None
    """None where only the model's own code gives its logits."""

    def token_logps(
        self, hidden: Float[Tensor, "tokens hidden"], targets: Int[Tensor, " tokens"]
    ) -> Float[Tensor, " tokens"]:
        """log p(target) of each row, float32; chunked, and recomputed in the backward."""
        if self.transform is None:
            return _own_token_logps(self.model, self.body, hidden, targets)
        score = partial(token_logps, targets=targets, transform=self.transform)
        # Through the module's call, so that the hooks of sharding engines gather its weight.
        return self.model.get_output_embeddings()(hidden, score)

    def fused(self, hidden: Float[Tensor, "tokens hidden"], what: ScoredPairs) -> tuple[Tensor, Tensor, Tensor]:
        """Summed loss, losses and log-probabilities, with the head's gradients computed here and now."""
        return self.model.get_output_embeddings()(hidden, partial(loss_and_logps, what=what))

    def release(self) -> None:
        """Give the head module its own forward back."""
        self.model.get_output_embeddings().__dict__.pop("forward", None)


def find_head(model: PreTrainedModel) -> Head:
    """The model's head: its logits on a few tokens decide which transform is the right one."""
    module = model.get_output_embeddings()
    body, hidden, logits = _probe(model)
    if type(module) is not nn.Linear:
        return Head(model=model, body=body, transform=None)
    with torch.no_grad():
        raw = module(hidden).to(logits.dtype)
    tolerance = _PROBE_TOLERANCE[torch.promote_types(module.weight.dtype, torch.bfloat16)] * logits.abs().max()
    for transform in _candidates(model):
        if raw.shape == logits.shape and (transform(raw) - logits).abs().max() <= tolerance:
            _let_score(module)
            return Head(model=model, body=body, transform=transform)
    logger.info("%s: unknown logit transform, its own code scores the tokens", type(model).__name__)
    return Head(model=model, body=body, transform=None)


def _candidates(model: PreTrainedModel) -> Iterator[HeadTransform]:
    """Transforms that the model's attributes and config speak of, the plain one first."""
    config = model.config.get_text_config()
    owners = (model, model.base_model, model.config, config)

    def values(names: tuple[str, ...]) -> list[float]:
        found = {getattr(owner, name, None) for owner in owners for name in names}
        return sorted(float(value) for value in found if isinstance(value, int | float) and value > 0)

    scales = [1.0, *itertools.chain.from_iterable((value, 1 / value) for value in values(_SCALES))]
    for softcap, scale in itertools.product([0.0, *values(_SOFTCAPS)], scales):
        yield HeadTransform(scale=scale, softcap=softcap)


@torch.no_grad()
def _probe(model: PreTrainedModel) -> tuple[nn.Module, Tensor, Tensor]:
    """The model's body, and a few tokens' hidden states and own logits."""
    weight = cast(Tensor, model.get_input_embeddings().weight)
    tokens = torch.arange(_PROBE_TOKENS, device=weight.device)[None] % weight.shape[0]
    outputs: dict[nn.Module, Tensor] = {}
    bodies = [model.get_decoder(), model.base_model, *(m for m in model.children() if isinstance(m, PreTrainedModel))]
    bodies = [body for body in bodies if body is not model]
    hooks = [body.register_forward_hook(lambda body, _args, out: outputs.update({body: out[0]})) for body in bodies]
    training = model.training
    model.eval()
    try:
        logits = type(model).forward(model, input_ids=tokens, use_cache=False).logits
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    called = [body for body in bodies if body in outputs]
    if not called:
        raise TrainingError(
            f"{type(model).__name__}: no decoder was found whose hidden states its head reads",
            where="model",
            expected="a causal language model of transformers: a decoder and a head",
            fix="this architecture is not supported; report it with the model's name",
        )
    return called[0], outputs[called[0]], logits


def _let_score(module: nn.Linear) -> None:
    """Let `module(hidden, score)` return `score(hidden, weight, bias)`; `module(hidden)` works as before."""
    own = type(module).forward

    def forward(self: nn.Linear, hidden: Tensor, score: Callable[..., Tensor] | None = None) -> Tensor:
        return own(self, hidden) if score is None else score(hidden, self.weight, self.bias)

    module.forward = types.MethodType(forward, module)  # type: ignore[method-assign]


class _Rows(BaseModelOutputWithPast):
    """A decoder's output that has hidden states and nothing else."""

    def __getattr__(self, name: str) -> None:
        return None


@contextlib.contextmanager
def _body_returns(body: nn.Module, hidden: Tensor) -> Iterator[None]:
    before = body.__dict__.get("forward")
    body.forward = lambda *_args, **_kwargs: _Rows(last_hidden_state=hidden[None])
    try:
        yield
    finally:
        if before is None:
            del body.forward
        else:
            body.forward = before


def _own_token_logps(model: PreTrainedModel, body: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """The same through the model's own head code, on chunks of given hidden states."""

    def score(rows: Tensor, ids: Tensor) -> Tensor:
        with _body_returns(body, rows):
            placeholder = torch.zeros(1, len(rows), dtype=torch.int64, device=rows.device)
            logits: Any = type(model).forward(model, input_ids=placeholder, use_cache=False).logits[0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(1)

    vocab = model.get_output_embeddings().weight.shape[0]
    rows = max(1, CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"]) // (4 * vocab))
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(score, h, t, use_reentrant=False) for h, t in chunks])
