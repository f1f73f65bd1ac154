"""What the pairs room takes and hands out. Reading this module imports neither torch nor datasets nor numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OnOverlong = Literal["truncate", "drop", "error"]
OnInvalid = Literal["drop", "error"]
TextFormat = Literal["auto", "chat", "raw"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSource:
    """One data set as the pairs room reads it: files that are already on this machine."""

    id: str
    """Hub id or path, as the recipe names it; row ids begin with it."""
    local_path: str | None = None
    """The file, folder or glob that holds its rows; where it is None, `id` is the path."""
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    weight: float | None = None
    """None: every row once. A number: this source's share among the weighted sources."""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """Ours (`prompt`, `chosen`, `rejected`, `system`, `tools`, `chat_template_kwargs`) -> the data set's column; a None
    leaves a column of that name unread."""
    limit: int | None = None
    """Only the first rows of the split."""

    @property
    def name(self) -> str:
        return f"{self.id}/{self.split}"

    @classmethod
    def of(cls, source: Any, *, local_path: str | None = None) -> PairSource:
        """The recipe's data source (any object with these attributes) with the folder it was resolved to."""
        if isinstance(source, cls):
            return source
        return cls(
            id=str(source.id),
            local_path=local_path or getattr(source, "local_path", None),
            config=getattr(source, "config", None),
            revision=getattr(source, "revision", None),
            split=getattr(source, "split", None) or "train",
            weight=getattr(source, "weight", None),
            columns=dict(getattr(source, "columns", None) or {}),
            limit=getattr(source, "limit", None),
        )
