"""The overlong policy: which tokens a row loses so that its longest path holds at most `max_length` tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from inspo_hub.errors import DataError

NO_LIMIT = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Limits:
    """What a path may hold."""

    max_length: int
    conditioned: bool
    separator_tokens: int = 0
    max_alternative_tokens: int | None = None
    prompt_floor: int = 2
    """Prompt tokens that stay in any case: BOS and the generation prompt."""

    @property
    def alternative_cap(self) -> int:
        return NO_LIMIT if self.max_alternative_tokens is None else self.max_alternative_tokens

    @property
    def kept_prompt(self) -> int:
        """A prompt is not cut below this while a response can still be cut: half of max_length."""
        return max(self.max_length // 2, self.prompt_floor)

    @property
    def between(self) -> int:
        """Tokens between prompt and response that no cut can save: the separator and one token of the alternative."""
        return self.separator_tokens + 1 if self.conditioned else 0

    def check(self) -> None:
        """A `max_length` that cannot hold a prompt, the separator and one token of each response is the user's."""
        smallest = self.prompt_floor + self.between + 1
        if self.max_length - self.kept_prompt - self.between < 1:
            raise DataError(
                f"max_length {self.max_length} leaves no token for a response",
                where="data.max_length",
                expected=f"at least {2 * (self.between + 1) + smallest}, and better some hundred",
                fix="raise max_length, or shorten alternative.turn_text",
            )


@dataclass(frozen=True)
class Cuts:
    """Per row: the lengths that stay, the alternative's limit, and what was taken."""

    lengths: Int[np.ndarray, "rows 3"]
    """Prompt, chosen, rejected tokens that stay."""
    max_alternative: Int[np.ndarray, " rows"]
    """NO_LIMIT where the policy leaves the alternative alone."""
    taken: Int[np.ndarray, "rows 4"]
    """Tokens taken from prompt, chosen, rejected, and from both alternatives together."""


def path_lengths(
    lengths: Int[np.ndarray, "rows 3"], limits: Limits, max_alternative: Int[np.ndarray, " rows"] | None = None
) -> Int[np.ndarray, " rows"]:
    """Tokens of each row's longest path: |x| + |y|, or |x| + min(|alternative|, cap) + |sep| + |target|."""
    prompt, chosen, rejected = lengths.T
    if not limits.conditioned:
        return prompt + np.maximum(chosen, rejected)
    cap: Any = (
        limits.alternative_cap if max_alternative is None else np.minimum(max_alternative, limits.alternative_cap)
    )
    longest = np.maximum(np.minimum(rejected, cap) + chosen, np.minimum(chosen, cap) + rejected)
    return prompt + limits.separator_tokens + longest


def cut_rows(lengths: Int[np.ndarray, "rows 3"], limits: Limits) -> Cuts:
    """Shortens the alternative's tail first, then the prompt's oldest tokens, then the responses' tails.

    The prompt keeps at least half of `max_length` (or all of itself, if shorter): an answer is never trained on
    without its question. Responses keep at least one token.
    """
    prompt, chosen, rejected = lengths.T.astype(np.int64)
    over = path_lengths(lengths, limits) > limits.max_length
    alternative = np.full(len(lengths), NO_LIMIT, dtype=np.int64)
    if limits.conditioned:
        room = limits.max_length - limits.separator_tokens - prompt
        for target, other in ((chosen, rejected), (rejected, chosen)):
            tight = over & (np.minimum(other, limits.alternative_cap) > room - target)
            alternative = np.where(tight, np.minimum(alternative, np.maximum(room - target, 1)), alternative)
    longest = np.maximum(chosen, rejected)
    room = limits.max_length - limits.between
    new_prompt = np.where(over, np.minimum(prompt, np.maximum(limits.kept_prompt, room - longest)), prompt)
    budget = np.where(over, room - new_prompt, NO_LIMIT)
    new_chosen, new_rejected = np.minimum(chosen, budget), np.minimum(rejected, budget)
    kept = np.stack([new_prompt, new_chosen, new_rejected], axis=1)
    from_alternatives = sum(
        np.maximum(np.minimum(other, limits.alternative_cap) - alternative, 0) for other in (new_chosen, new_rejected)
    )
    taken = np.column_stack([prompt - new_prompt, chosen - new_chosen, rejected - new_rejected, from_alternatives])
    return Cuts(kept, alternative, taken)
