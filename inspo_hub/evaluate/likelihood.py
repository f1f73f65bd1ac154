"""Log-probabilities of answers under a model, from plain causal forwards."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def response_logps(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    logits_at_once: int = 2**24,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """log π(y|x) of each response in nats, `(rows,)`; an empty response has 0.

    Equivalent to `log_softmax(model(x ⊕ y).logits)[|x|-1:-1].gather(y).sum()` for one row at a time. No more than
    `logits_at_once` logits exist at a time, or those of one row. Sums are in float64.
    """
    assert len(prompts) == len(responses)
    assert all(len(prompt) > 0 for prompt in prompts), "the first token of a response needs one that predicts it"
    sums = np.zeros(len(prompts))
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), len(responses[index])))
    batch: list[int] = []
    for index in [index for index in order if len(responses[index]) > 0]:
        candidate = [*batch, index]
        if batch and _logits_needed(model, prompts, responses, candidate) > logits_at_once:
            sums[batch] = _score_batch(model, [prompts[i] for i in batch], [responses[i] for i in batch])
            candidate = [index]
        batch = candidate
    if batch:
        sums[batch] = _score_batch(model, [prompts[i] for i in batch], [responses[i] for i in batch])
    return sums


def _logits_needed(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], batch: Sequence[int]
) -> int:
    first = min(len(prompts[index]) for index in batch) - 1
    last = max(len(prompts[index]) + len(responses[index]) for index in batch) - 1
    return len(batch) * (last - first) * int(model.config.get_text_config().vocab_size)


def _score_batch(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Sums of one batch. Padding is on the right, where causal attention cannot see it: no mask, no position ids."""
    rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
    first = min(map(len, prompts)) - 1  # the first position that predicts a scored token
    logits = logits_between(model, ids, first, width - 1)
    token_logps = torch.log_softmax(logits.float(), dim=-1).gather(2, ids[:, first + 1 :, None]).squeeze(2)
    predicted = torch.arange(first + 1, width, device=model.device)
    starts = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    ends = torch.tensor([len(row) for row in rows], device=model.device)
    scored = (predicted >= starts[:, None]) & (predicted < ends[:, None])
    return torch.where(scored, token_logps, 0.0).double().sum(dim=1).cpu().numpy()


def logits_between(model: PreTrainedModel, ids: Tensor, start: int, stop: int) -> Float[Tensor, "rows kept vocab"]:
    """Logits of the positions [start, stop), without computing the others where the architecture can leave them out."""
    was_training = model.training
    model.eval()
    try:
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            kept = torch.arange(start, stop, device=ids.device)
            return model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        return model(input_ids=ids, use_cache=False).logits[:, start:stop]
    finally:
        model.train(was_training)
