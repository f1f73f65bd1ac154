"""Log-probabilities by one plain forward per path of an untouched model, in plain torch: what everything is held to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score


def path_of(
    pair: PreferencePair, score: Score, separator: Sequence[int] = (), max_alternative_tokens: int | None = None
) -> tuple[list[int], list[int]]:
    """The context and the response of a score, from their definition."""
    response = list(pair.chosen if score.startswith("chosen") else pair.rejected)
    if score in ("chosen", "rejected"):
        return list(pair.prompt), response
    alternative = list(pair.rejected if score == "chosen_given_rejected" else pair.chosen)
    limits = [limit for limit in (max_alternative_tokens, pair.max_alternative_tokens) if limit is not None]
    if limits and min(limits) < len(alternative):
        keep = min(limits)
        alternative = [*alternative[: keep - 1], alternative[-1]] if keep > 0 else []
    return [*pair.prompt, *alternative, *separator], response


def plain_logps(
    model: nn.Module,
    pairs: Sequence[PreferencePair],
    scores: Sequence[Score] = SCORES,
    *,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
) -> dict[Score, Tensor]:
    """Each score's summed log-probability of each pair `(pairs,)`, differentiable, in the model's own precision."""
    result: dict[Score, Tensor] = {}
    for score in scores:
        sums = []
        for pair in pairs:
            context, response = path_of(pair, score, separator, max_alternative_tokens)
            logits = model(input_ids=torch.tensor([context + response]), use_cache=False).logits[0]
            token_logps = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
            steps = torch.arange(len(context) - 1, len(context) + len(response) - 1)
            sums.append(token_logps[steps, torch.tensor(response)].sum())
        result[score] = torch.stack(sums)
    return result
