"""Which pairs make a step, which process takes which of them, and in which micro-batches: indices only, no tensors.

A step is the same set of pairs whatever the number of processes and whatever the token budget; everything here is
deterministic in its arguments, so that resuming needs no state but the step's number.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np

    Numbers = Sequence[int] | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class StepOrder(Sequence["np.ndarray"]):
    """Item k holds the rows of optimizer step k, int64 `(pairs of the step,)`; see `step_indices`."""

    n_pairs: int
    pairs_per_step: int
    epochs: float
    seed: int
    max_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n_pairs // self.pairs_per_step)

    def __len__(self) -> int:
        whole = int(self.epochs)
        rest = _pairs_of_part(self.n_pairs, self.epochs - whole)
        steps = whole * self.steps_per_epoch + -(-rest // self.pairs_per_step)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[step] for step in range(*index.indices(len(self)))]
        step = range(len(self))[index]  # negative steps count from the end; beyond the last is an IndexError
        import numpy as np

        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        whole_epoch = epoch < int(self.epochs)
        pairs = self.n_pairs if whole_epoch else _pairs_of_part(self.n_pairs, self.epochs - int(self.epochs))
        first = step_of_epoch * self.pairs_per_step
        order = _epoch_order(self.n_pairs, self.seed, epoch)
        return np.asarray(order[first : min(first + self.pairs_per_step, pairs)], dtype=np.int64)


def step_indices(
    n_pairs: int, pairs_per_step: int, epochs: float, seed: int, max_steps: int | None = None
) -> StepOrder:
    """The rows of every optimizer step: each epoch a new seeded order, cut into steps; its uneven last step is kept.

    A step never reaches over the end of an epoch, so no pair is in a step twice. A part of an epoch (epochs=1.5) takes
    the first pairs of its order, rounded up. `max_steps` ends the run early; the steps before it stay what they are.
    """
    assert n_pairs > 0, "no pairs"
    assert pairs_per_step > 0, "a step has at least one pair"
    assert epochs > 0, "no epochs"
    return StepOrder(n_pairs, pairs_per_step, epochs, seed, max_steps)


def deal_step(costs: Numbers, n_processes: int) -> list[list[int]]:
    """Positions in the step for each process, balanced by cost: longest processing time first (Graham 1969).

    The most expensive pair that is left goes to the process with the least work so far; ties go to the smaller index.
    A process may get nothing. Positions of a process are in ascending order.
    """
    loads = [(0.0, process) for process in range(n_processes)]  # sorted, hence already a heap
    shares: list[list[int]] = [[] for _ in range(n_processes)]
    for position in _descending(costs):
        load, process = heapq.heappop(loads)
        shares[process].append(position)
        heapq.heappush(loads, (load + float(costs[position]), process))
    return [sorted(share) for share in shares]


def steps_within(steps: Sequence[Sequence[int]] | StepOrder, tokens: Numbers, most: int) -> int:
    """How many of the first steps lay out no more than `most` tokens together; `tokens` are those of each row."""
    total = 0
    for done, rows in enumerate(steps):
        total += sum(int(tokens[row]) for row in rows)
        if total > most:
            return done
    return len(steps)


def pack_micro_batches(tokens: Numbers, tokens_per_microbatch: int) -> list[list[int]]:
    """Positions in each micro-batch, filled under the token budget by best fit, longest pairs first.

    A pair longer than the budget is a micro-batch of its own: nothing is dropped or cut here. Micro-batches come
    largest first, so that processes that run in lockstep run micro-batches of like size side by side.
    """
    members: list[list[int]] = []
    filled: list[int] = []
    room: list[tuple[int, int]] = []  # (tokens left, micro-batch), ascending: the first that fits fits best
    for position in _descending(tokens):
        size = int(tokens[position])
        slot = bisect_left(room, (size, -1))
        if slot < len(room):
            left, target = room.pop(slot)
        else:
            left, target = tokens_per_microbatch, len(members)
            members.append([])
            filled.append(0)
        members[target].append(position)
        filled[target] += size
        if left > size:
            insort(room, (left - size, target))
    order = sorted(range(len(members)), key=lambda index: (-filled[index], index))
    return [sorted(members[index]) for index in order]


def plan_step(
    costs: Numbers, tokens: Numbers, *, n_processes: int, tokens_per_microbatch: int
) -> list[list[list[int]]]:
    """Positions in the step as [process][micro-batch][pair]: `deal_step`, then `pack_micro_batches` in each share.

    Every process gets the same number of micro-batches, for the collectives of a sharded engine must meet; those that
    have fewer get empty ones at the end.
    """
    plan = []
    for share in deal_step(costs, n_processes):
        packed = pack_micro_batches([int(tokens[position]) for position in share], tokens_per_microbatch)
        plan.append([[share[member] for member in members] for members in packed])
    longest = max(len(micro_batches) for micro_batches in plan)
    return [micro_batches + [[] for _ in range(longest - len(micro_batches))] for micro_batches in plan]


def worst_case_pairs(tokens: Numbers, tokens_per_microbatch: int) -> list[int]:
    """Rows whose micro-batch is at least as large as nearly any the run can form: what to try first for memory.

    The longest row, and then the longest rows that still fit. No micro-batch has more tokens than the larger of the
    budget and the longest row, and this one is short of that by less than the shortest row left out.
    """
    chosen: list[int] = []
    left = max(tokens_per_microbatch, max((int(count) for count in tokens), default=0))
    for row in _descending(tokens):
        if int(tokens[row]) <= left:
            chosen.append(row)
            left -= int(tokens[row])
    return sorted(chosen)


def largest_micro_batch(micro_batches: Iterable[Sequence[int]], tokens: Numbers) -> list[int]:
    """The micro-batch with the most tokens, the first of them where several have as many; [] where there is none."""
    best: Sequence[int] = ()
    most = -1
    for members in micro_batches:
        total = sum(int(tokens[member]) for member in members)
        if total > most:
            best, most = members, total
    return list(best)


def _descending(values: Numbers) -> list[int]:
    return sorted(range(len(values)), key=lambda index: (-float(values[index]), index))


def _pairs_of_part(n_pairs: int, part: float) -> int:
    # 1e-9: a part such as 1.1 - 1 must not round up to one pair more than it means.
    return min(n_pairs, math.ceil(n_pairs * part - 1e-9)) if part > 0 else 0


@lru_cache(maxsize=2)
def _epoch_order(n_pairs: int, seed: int, epoch: int) -> list[int]:
    """A permutation that every Python draws alike: `random()` is promised to be stable, `shuffle` is not."""
    draw = random.Random(f"order of the pairs, seed {seed}, epoch {epoch}")
    keys = [draw.random() for _ in range(n_pairs)]
    return sorted(range(n_pairs), key=keys.__getitem__)
