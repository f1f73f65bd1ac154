"""What stands before a response when preferences are measured: nothing, the alternative it was trained with, or others.

A novel alternative is one that training never showed with this pair. Numpy only; `preferences` scores what is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from inspo_hub.pairs import PreferencePair

NovelKind = Literal["own", "other_prompt", "truncated", "empty", "shuffled"]
NOVEL: tuple[NovelKind, ...] = get_args(NovelKind)
CONTEXTS: Mapping[str, str] = {
    "plain": "the prompt alone, as the model is used",
    "seen": "the other response of the pair, as in training",
    "own": "a sample of the measured model itself, the same for both responses",
    "other_prompt": "a response to another prompt, the same for both responses",
    "truncated": "the first half of the other response, and its end token",
    "empty": "an empty answer, the same for both responses",
    "shuffled": "the other response with its tokens in random order, its end token last",
}
"""Every context that is measured, in the order of the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRules:
    """How a system was trained to read an alternative."""

    separator: tuple[int, ...] = ()
    max_alternative_tokens: int | None = None
    max_length: int
    """Tokens of the longest path: prompt, alternative, separator and response."""


@dataclass(frozen=True, slots=True)
class BothInContext:
    """A pair as two: each response as `chosen`, with what it is given as `rejected`; only the first is scored."""

    chosen: PreferencePair
    rejected: PreferencePair


def in_novel_contexts(
    pairs: Sequence[PreferencePair],
    kind: NovelKind,
    rules: ContextRules,
    *,
    own: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
) -> list[BothInContext]:
    """Every pair with alternatives of one kind, cut to the room that is left; empty where there is no other prompt.

    Args:
        own: for kind `own`, a sample of the measured model for each pair's prompt.
    """
    if kind == "own":
        assert own is not None
        assert len(own) == len(pairs), "one sample for each pair"
    foreign = _responses_to_other_prompts(pairs, seed) if kind == "other_prompt" else None
    if kind == "other_prompt" and foreign is None:
        return []
    found = []
    for index, pair in enumerate(pairs):
        given: tuple[Sequence[int], Sequence[int]]
        if kind == "own":
            given = (own[index], own[index]) if own is not None else ((), ())
        elif kind == "other_prompt":
            given = (foreign[index], foreign[index]) if foreign is not None else ((), ())
        elif kind == "shuffled":
            given = (_shuffled(pair.rejected, (seed, index, 0)), _shuffled(pair.chosen, (seed, index, 1)))
        else:
            given = (pair.rejected, pair.chosen)
        found.append(
            BothInContext(
                _given(pair, pair.chosen, given[0], kind, rules), _given(pair, pair.rejected, given[1], kind, rules)
            )
        )
    return found


def _given(
    pair: PreferencePair, response: Sequence[int], alternative: Sequence[int], kind: NovelKind, rules: ContextRules
) -> PreferencePair:
    """`response` given `alternative`, as `chosen_given_rejected` of a pair that packing takes."""
    room = max(0, rules.max_length - len(pair.prompt) - len(rules.separator) - len(response))
    limits = [room, *([rules.max_alternative_tokens] if rules.max_alternative_tokens is not None else [])]
    if kind == "truncated":
        limits.append(-(-len(alternative) // 2))
    elif kind == "empty":
        limits.append(0)
    # Packing wants a token even of an alternative of which none is kept.
    kept = alternative if len(alternative) else pair.rejected
    return replace(pair, chosen=response, rejected=kept, max_alternative_tokens=min(limits))


def _shuffled(response: Sequence[int], seed: tuple[int, ...]) -> list[int]:
    body = np.asarray(response[:-1])
    order = np.random.default_rng(seed).permutation(len(body))
    return [*body[order].tolist(), int(response[-1])]


def _responses_to_other_prompts(pairs: Sequence[PreferencePair], seed: int) -> list[Sequence[int]] | None:
    """For each pair a response, chosen or rejected, to another prompt; None where all have one prompt."""
    prompts = [tuple(pair.prompt) for pair in pairs]
    if len(set(prompts)) < 2:
        return None
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pairs))
    place = np.argsort(order)
    sides = rng.integers(2, size=len(pairs))
    found: list[Sequence[int]] = []
    for index, prompt in enumerate(prompts):
        step = 1
        while prompts[other := int(order[(place[index] + step) % len(pairs)])] == prompt:
            step += 1
        found.append(pairs[other].chosen if sides[index] else pairs[other].rejected)
    return found
