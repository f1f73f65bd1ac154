"""What the pairs room hands to the others. Reading this module imports neither torch nor datasets nor numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One tokenised preference: a prompt and two responses to it, as lists of token ids.

    The prompt is what inference feeds: it starts with the BOS token where the model has one and ends with the
    template's generation prompt. Each response ends in its one end token, unless the overlong policy cut it.
    """

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    row_id: str = ""
    """`<source>/<split>/<row number>`, as error messages and reports name the row."""
    max_alternative_tokens: int | None = None
    """What the overlong policy leaves of an alternative here; packing takes the smaller of this and the recipe's."""
    truncated_tokens: int = 0
    """Tokens that the overlong policy took from this row: prompt, responses and both alternatives together."""
