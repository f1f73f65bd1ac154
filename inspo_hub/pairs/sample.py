"""Lengths without a run: how long the pairs of some rows are, and what the overlong policy would make of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from inspo_hub.pairs.cache import tokenise_rows
from inspo_hub.pairs.load import content_key, load_source, our_columns, quiet_progress
from inspo_hub.pairs.overlong import NO_LIMIT, Limits, cut_rows, path_lengths
from inspo_hub.pairs.prepare import tokeniser_for
from inspo_hub.pairs.types import PairSource, TextFormat

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """What some rows of one source are like."""

    rows: int
    """Rows that were looked at."""
    lengths: Int[np.ndarray, "pairs 3"]
    """Prompt, chosen and rejected tokens of those that are pairs, nothing cut."""
    invalid: Mapping[str, int]
    """Kind of problem -> rows."""


def count_rows(source: PairSource) -> int:
    """Rows of a source that lies on this machine, `limit` included."""
    return len(load_source(source, content_key(source)))


def look_at(
    source: PairSource,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows: int | Sequence[Mapping[str, Any]],
    seed: int = 0,
    text_format: TextFormat = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> LookedAt:
    """Tokenises rows of a source as a run would: `rows` of them, drawn by the seed, or the raw rows that are given."""
    import datasets

    tokeniser = tokeniser_for(tokenizer, text_format, template_kwargs)
    if isinstance(rows, int):
        data: Dataset = load_source(source, content_key(source))
        if rows < len(data):
            data = data.select(sorted(random.Random(f"rows of a plan, {seed}").sample(range(len(data)), rows)))
    else:
        with quiet_progress():
            data = our_columns(datasets.Dataset.from_list([dict(row) for row in rows]), source)
    table = tokenise_rows(data[:], range(len(data)), tokeniser=tokeniser)
    problems = table.column("problem").to_pylist()
    columns = [table.column(name).combine_chunks().value_lengths() for name in ("prompt", "chosen", "rejected")]
    valid = np.array([problem is None for problem in problems], dtype=bool)
    lengths = np.column_stack([column.to_numpy() for column in columns]).astype(np.int64)
    return LookedAt(
        rows=len(data), lengths=lengths[valid], invalid=Counter(problem for problem in problems if problem is not None)
    )


def prompt_floor(
    tokenizer: PreTrainedTokenizerBase,
    text_format: TextFormat = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> int:
    """Prompt tokens that no truncation takes."""
    return tokeniser_for(tokenizer, text_format, template_kwargs).floor


@dataclass(frozen=True)
class CutLengths:
    """Lengths after the overlong policy."""

    rows: list[tuple[int, int, int, int | None]]
    """Prompt, chosen, rejected, and the alternative's limit where there is one."""
    overlong: list[bool]
    taken: dict[str, int]


def cut_lengths(lengths: Int[np.ndarray, "pairs 3"], limits: Limits) -> CutLengths:
    """What `on_overlong: truncate` makes of pairs of these lengths."""
    cuts = cut_rows(lengths, limits)
    over = path_lengths(lengths, limits) > limits.max_length
    names = ("prompt", "chosen", "rejected", "alternatives")
    return CutLengths(
        rows=[
            (*row, None if limit == NO_LIMIT else limit)
            for row, limit in zip(cuts.lengths.tolist(), cuts.max_alternative.tolist(), strict=True)
        ],
        overlong=over.tolist(),
        taken=dict(zip(names, cuts.taken.sum(axis=0).tolist(), strict=True)),
    )
