"""The data set the Trainer sees: item k is this process's share of optimizer step k, packed into micro-batches.

A step is the same set of pairs whatever the number of processes; they are dealt by cost. Every process gets the same
number of micro-batches, so that collectives inside a forward pass always meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from inspo_hub.dealing import deal_step, pack_micro_batches, worst_case_pairs
from inspo_hub.packing import PackedBatch
from inspo_hub.views import Score, TreeLogps


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    batch: PackedBatch
    rows: tuple[int, ...]
    """Data set rows of the batch's pairs, in the batch's order."""
    reference: TreeLogps | None
    """Reference log-probabilities `(pairs,)`, float32; None for objectives without a reference."""
    truncated: Tensor
    """Pairs from which the overlong policy removed tokens, bool `(pairs,)`."""
    filler: bool = False
    """A filler joins the collectives of the other processes' micro-batches and adds nothing."""


@dataclass(frozen=True, kw_only=True)
class StepShare:
    """One process's share of one optimizer step."""

    micro_batches: tuple[MicroBatch, ...]
    step: int
    pairs: int
    """Pairs of the whole step over all processes: every micro-batch is scaled by 1/pairs before its backward."""
    progress: float
    """Share of training done when the step starts, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class StepDataset(Dataset):
    """Deals, packs and attaches reference scores; deterministic in its arguments, so resuming needs no state.

    Args:
        steps: the rows of each optimizer step, in training order.
        pack: packs rows so that the objective's scores can be read.
        tokens: tokens each row takes in a micro-batch, `(rows,)`.
        costs: estimated work per row, any unit, `(rows,)`; used to deal rows to processes.
        reference: float64 `(rows,)` per score.
        truncated: rows from which the overlong policy removed tokens, bool `(rows,)`.
    """

    steps: Sequence[np.ndarray]
    pack: Callable[[Sequence[int]], PackedBatch]
    tokens: np.ndarray
    costs: np.ndarray
    reference: dict[Score, np.ndarray]
    truncated: np.ndarray
    tokens_per_microbatch: int
    processes: int
    process: int

    def __len__(self) -> int:
        return len(self.steps)

    def shares(self, step: int) -> list[list[list[int]]]:
        """Data set rows as [process][micro-batch][pair]; the number of micro-batches may still differ."""
        rows = self.steps[step]
        dealt = deal_step(self.costs[rows], self.processes)
        shares = []
        for part in dealt:
            mine = rows[np.asarray(part, dtype=np.int64)]
            packed = pack_micro_batches(self.tokens[mine], self.tokens_per_microbatch)
            shares.append([[int(row) for row in mine[list(members)]] for members in packed])
        return shares

    def __getitem__(self, step: int) -> StepShare:
        shares = self.shares(step)
        missing = max(len(share) for share in shares) - len(shares[self.process])
        # Fillers first: gradients are exchanged in the last backward pass, which is then a real one where there is one.
        filler_row = int(self.tokens.argmin())
        micro_batches = [self._micro_batch([filler_row], filler=True) for _ in range(missing)]
        micro_batches += [self._micro_batch(rows) for rows in shares[self.process]]
        return StepShare(
            micro_batches=tuple(micro_batches),
            step=step,
            pairs=len(self.steps[step]),
            progress=step / max(1, len(self.steps) - 1),
        )

    def largest_micro_batch(self) -> MicroBatch:
        """A micro-batch as large as nearly any of the run: if this one fits into memory, all do."""
        rows = np.unique(np.concatenate(list(self.steps)))
        worst = worst_case_pairs(self.tokens[rows], self.tokens_per_microbatch)
        return self._micro_batch([int(row) for row in rows[worst]])

    def _micro_batch(self, rows: list[int], *, filler: bool = False) -> MicroBatch:
        reference = None
        if self.reference:
            values = {score: torch.from_numpy(values[rows]).float() for score, values in self.reference.items()}
            reference = TreeLogps(**values)
        return MicroBatch(
            batch=self.pack(rows),
            rows=tuple(rows),
            reference=reference,
            truncated=torch.from_numpy(self.truncated[rows]),
            filler=filler,
        )


def to_device(logps: TreeLogps | None, device: torch.device) -> TreeLogps | None:
    """The same log-probabilities on another device; None stays None."""
    if logps is None:
        return None
    moved = {name: value.to(device, non_blocking=True) for name, value in vars(logps).items() if value is not None}
    return TreeLogps(**moved)
