"""Scores rows of a data set with a model, without gradient: the reference pass and held-out evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from inspo_hub.dealing import pack_micro_batches
from inspo_hub.logprobs import tree_logps
from inspo_hub.packing import PackedBatch
from inspo_hub.views import Score, TreeLogps

PackRows = Callable[[Sequence[int], Sequence[Score]], PackedBatch]
"""Packs the rows with the given indices so that the given scores can be read."""


@dataclass(frozen=True, kw_only=True)
class RowScorer:
    """Log-probabilities of data set rows under `model`, micro-batch by micro-batch under a token budget."""

    model: nn.Module
    pack: PackRows
    tokens: np.ndarray
    """Tokens each row takes in a micro-batch, `(rows,)`."""
    tokens_per_microbatch: int
    device: torch.device
    compute_dtype: torch.dtype

    def micro_batches(self) -> list[list[int]]:
        """All rows, cut once under the token budget: the same cut whichever of them are scored, and by how many
        processes."""
        return pack_micro_batches(self.tokens, self.tokens_per_microbatch)

    def batches(
        self, rows: Sequence[int], scores: Sequence[Score]
    ) -> Iterator[tuple[list[int], PackedBatch, TreeLogps]]:
        """Yields (row indices, their packed batch, their log-probabilities) until every row was scored once."""
        index = np.asarray(rows, dtype=np.int64)
        for micro_batch in pack_micro_batches(self.tokens[index], self.tokens_per_microbatch) if len(index) else []:
            members = [int(row) for row in index[list(micro_batch)]]
            batch = self.pack(members, scores).to(self.device)
            with (
                torch.no_grad(),
                torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype == torch.bfloat16),
            ):
                logps = tree_logps(self.model, batch, scores=tuple(scores))
            yield members, batch, logps

    def __call__(self, rows: Sequence[int], scores: Sequence[Score]) -> Iterator[tuple[int, dict[Score, float]]]:
        """Yields (row index, log-probabilities in nats): the shape that `ReferenceScores.fill` takes."""
        for members, _batch, logps in self.batches(rows, scores):
            values = {score: logps.get(score).double().tolist() for score in scores}
            for position, row in enumerate(members):
                yield row, {score: values[score][position] for score in scores}
