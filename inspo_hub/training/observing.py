"""Whether a conditioned run reads its plain scores, which its loss does not use, in every step or in logged ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from inspo_hub.pairs import PairSet

CHEAP_SHARE = 0.03
"""Of a step's time, which reading them may take in every step: small beside what steps differ by anyway."""


def reading_share(model: nn.Module, pairs: PairSet, tokens: np.ndarray) -> float:
    """What one more forward of the head over both responses adds to a step, as a share of the step's FLOPs.

    A step is taken as three forwards, of the body over all tokens and of the head over as many as are read here.

    Args:
        model: the policy; its embeddings are looked up, not multiplied.
        tokens: what each pair lays out, `(pairs,)`.
    """
    head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight  # type: ignore[operator]
    body = sum(map(_size, model.parameters())) - _size(embeddings) - (0 if head is embeddings else _size(head))
    reading = float(_size(head)) * float(pairs.lengths[:, 1:].sum())
    return reading / (3 * (float(body) * float(tokens.sum()) + reading))


def _size(parameter: Any) -> int:
    """Numbers of a parameter, its other processes' parts included where DeepSpeed has shared it out."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
