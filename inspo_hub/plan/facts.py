"""What is known of a model and of data before either is downloaded; the survey room finds it out, a plan reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from inspo_hub.cost import ModelShape


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A decoder by its numbers, read from the headers of its weights and from config.json."""

    name: str
    model_type: str
    shape: ModelShape
    parameters: int
    """Numbers that are trained; a matrix that embedding and head share counts once, buffers not at all."""
    by_dtype: Mapping[str, int]
    """Numbers by the format they are stored in."""
    embedding: int
    head: int
    """The output matrix; 0 where it is the embedding's."""
    matrices: Mapping[str, tuple[int, int]]
    """Matrices of the decoder layers: name -> (rows, columns). Experts that are stacked in one tensor count their
    number into the rows."""
    download_bytes: int
    """Bytes of the weight files."""
    notes: tuple[str, ...] = ()

    @property
    def body(self) -> int:
        """Parameters of the decoder layers and norms: all but embedding and head."""
        return self.parameters - self.embedding - self.head

    @property
    def layer(self) -> int:
        """Parameters of one decoder layer, the mean."""
        return self.body // max(1, self.shape.layers)


class PairRow(NamedTuple):
    """The lengths of a pair in tokens, after the overlong policy."""

    prompt: int
    chosen: int
    rejected: int
    max_alternative: int | None = None
    """The limit that the overlong policy left of an alternative in this row; None: no limit."""


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """What `data.max_length` does to the rows that were looked at, under one conditioning."""

    rows: int
    """Rows whose longest path is longer than max_length."""
    taken: Mapping[str, int]
    """Tokens that `truncate` would take: of prompts, chosen and rejected responses, and alternatives."""
    lengths: Sequence[PairRow]
    """The rows after `truncate`."""


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """One data set."""

    name: str
    rows: int
    rows_known: bool
    """False: estimated from the size of its files."""
    looked_at: int
    """Rows that were tokenised."""
    invalid: Mapping[str, int] = field(default_factory=dict)
    """Kind of problem -> rows among those looked at that cannot be pairs."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The pairs of a recipe: all of them, or what a sample says of them."""

    exact: bool
    """Every row was tokenised as the run will: counts are the run's own."""
    method: str
    """How tokens were counted, in words."""
    train_pairs: int
    heldout_pairs: int
    rows: Sequence[PairRow]
    """Pairs as the run sees them: in the order of its data set where exact, else a sample in the same proportions."""
    heldout_rows: Sequence[PairRow]
    by_conditioning: Mapping[str, Overlong]
    """What max_length does under each conditioning, on the rows that were looked at."""
    sources: Sequence[SourceFacts]
    dropped: int
    """Rows that were looked at and are left out: invalid, or over-long under `on_overlong: drop`."""
    separator: int
    """Tokens between an alternative and the response behind it."""
    prompts: int = 0
    """Prompts of the evaluation."""
    notes: tuple[str, ...] = ()
