"""Lengths -> what a variant's training does: tokens, steps, micro-batches and FLOPs, dealt and packed as the run does.

Where every pair's length is known, the steps are the run's own and so are the counts. From a sample, some steps are
drawn at random and stand for all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from inspo_hub.cost import Layout, ModelShape, PairFlops, PairWork, pair_flops, pair_work
from inspo_hub.dealing import plan_step, step_indices, steps_within
from inspo_hub.plan.timing import NO_WORK, Work

if TYPE_CHECKING:
    from inspo_hub.plan.facts import DataFacts, PairRow
    from inspo_hub.recipe import Recipe
    from inspo_hub.views import AlternativeGradient, Score

DRAWN_STEPS = 16
"""Steps that stand for all where only a sample of the pairs is known, and for comparing machines."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How a variant lays out its pairs."""

    scores: tuple[Score, ...]
    trained: tuple[Score, ...]
    separator: int
    max_alternative: int | None
    layout: Layout
    alternative_gradient: AlternativeGradient = "full"
    coupled: bool = False
    """The objective couples pairs: the head computes its logits twice."""

    @classmethod
    def of(cls, recipe: Recipe, data: DataFacts) -> Packing:
        with_chosen = recipe.objective.needs_plain_chosen
        return cls(
            scores=recipe.conditioning.laid_out_scores(with_plain_chosen=with_chosen),
            trained=recipe.conditioning.needed_scores(with_plain_chosen=with_chosen),
            separator=data.separator,
            max_alternative=recipe.alternative.max_tokens,
            layout="flat" if recipe.model.attention == "flat" else "tree",
            alternative_gradient=recipe.alternative.gradient,
            coupled=not recipe.objective.separable,
        )

    def limit(self, row: PairRow) -> int | None:
        limits = [limit for limit in (row.max_alternative, self.max_alternative) if limit is not None]
        return min(limits) if limits else None

    def pair(self, row: PairRow, *, scores: Sequence[Score] | None = None) -> PairWork:
        """What the pair lays out; only a training batch, which has all scores, stops the gradient at alternatives."""
        return pair_work(
            row[:3],
            scores=scores or self.scores,
            separator=self.separator,
            max_alternative_tokens=self.limit(row),
            layout=self.layout,
            alternative_gradient=self.alternative_gradient if scores is None else "full",
        )

    def work(
        self,
        row: PairRow,
        shape: ModelShape,
        *,
        scores: Sequence[Score] | None = None,
        training: bool = True,
        checkpointing: bool = False,
        kept_bytes: float | None = None,
    ) -> Work:
        """FLOPs of the pair: the layout's layers, and the head on the scores that are computed.

        Args:
            kept_bytes: a pair whose logits take more is scored twice by the head; None: none is.
        """
        heads = scores or self.trained
        logits = 4.0 * shape.vocab * self.pair(row, scores=heads).head_positions
        again = kept_bytes is not None and (self.coupled or logits > kept_bytes)

        def flops(of: Sequence[Score], gradient: AlternativeGradient = "full") -> PairFlops:
            return pair_flops(
                shape,
                row[:3],
                scores=of,
                separator=self.separator,
                max_alternative_tokens=self.limit(row),
                layout=self.layout,
                training=training,
                checkpointing=checkpointing,
                head_recomputed=again,
                alternative_gradient=gradient,
            )

        laid_out = flops(scores or self.scores, self.alternative_gradient if scores is None else "full")
        head = laid_out.head if heads == (scores or self.scores) else flops(heads).head
        tokens = self.pair(row, scores=scores).tokens
        return Work(float(tokens), float(laid_out.body), float(laid_out.attention), float(head))


@dataclass(frozen=True)
class Workload:
    """The steps of one variant over known or sampled rows."""

    packing: Packing
    rows: Sequence[PairRow]
    steps: int
    pairs: int
    """Pairs of all steps together."""
    exact: bool
    order: Sequence[Sequence[int]] = field(repr=False)
    """Rows of each step; of some steps that stand for all where not `exact`."""

    @classmethod
    def of(cls, recipe: Recipe, data: DataFacts) -> Workload:
        train = recipe.train
        order = step_indices(data.train_pairs, train.pairs_per_step, train.epochs, recipe.seed, train.max_steps)
        packing = Packing.of(recipe, data)
        if data.exact:
            steps = [[int(row) for row in rows] for rows in order]
            if train.max_tokens is not None:
                tokens = [int(packing.pair(row).tokens) for row in data.rows]
                steps = steps[: max(1, steps_within(steps, tokens, train.max_tokens))]
            return cls(packing, data.rows, len(steps), sum(map(len, steps)), True, steps)
        draw = random.Random(f"steps of a plan, seed {recipe.seed}")
        size = min(train.pairs_per_step, data.train_pairs)
        population = range(len(data.rows))
        drawn = [
            draw.sample(population, size) if size <= len(population) else draw.choices(population, k=size)
            for _ in range(min(DRAWN_STEPS, len(order)))
        ]
        count = len(order)
        if train.max_tokens is not None:
            of_a_step = size * sum(int(packing.pair(row).tokens) for row in data.rows) / len(data.rows)
            count = max(1, min(count, int(train.max_tokens / of_a_step)))
        pairs = int(min(count * train.pairs_per_step, round(data.train_pairs * train.epochs)))
        return cls(packing, data.rows, count, pairs, False, drawn)

    @cached_property
    def tokens_of(self) -> list[int]:
        """Tokens that each row lays out."""
        return [int(self.packing.pair(row).tokens) for row in self.rows]

    @cached_property
    def trained_tokens_of(self) -> list[int]:
        """Of them, those that a step runs backward through: all, unless the gradient stops at the alternative."""
        return [int(self.packing.pair(row).trained.tokens) for row in self.rows]

    @property
    def trained_share(self) -> float:
        """Part of the tokens that a step runs backward through."""
        return sum(self.trained_tokens_of) / sum(self.tokens_of)

    @property
    def tokens(self) -> float:
        """Tokens of all steps together."""
        known = sum(self.tokens_of[row] for rows in self.order for row in rows)
        if self.exact:
            return known
        return known / sum(map(len, self.order)) * self.pairs

    @cached_property
    def scored_share(self) -> float:
        """Part of the tokens that the head scores."""
        scored = sum(int(self.packing.pair(row, scores=self.packing.trained).head_positions) for row in self.rows)
        return scored / sum(self.tokens_of)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.tokens_of)

    def dealt(self, *, processes: int, budget: int, at_most: int | None = None) -> list[list[list[list[int]]]]:
        """Of each step (of `at_most` of them, evenly spread): [process][micro-batch][row]."""
        chosen = _spread(self.order, at_most)
        return [
            [
                [[rows[place] for place in micro_batch] for micro_batch in share]
                for share in self._step(rows, processes, budget)
            ]
            for rows in chosen
        ]

    def _step(self, rows: Sequence[int], processes: int, budget: int) -> list[list[list[int]]]:
        tokens = [self.tokens_of[row] for row in rows]
        costs = [self.tokens_of[row] + 2 * self.trained_tokens_of[row] for row in rows]
        return plan_step(costs, tokens, n_processes=processes, tokens_per_microbatch=budget)

    def micro_batches(self, *, processes: int, budget: int) -> float:
        """Micro-batches of the whole training on each process; every process runs as many."""
        steps = self.dealt(processes=processes, budget=budget)
        counted = sum(len(shares[0]) for shares in steps)
        return counted if self.exact else counted / len(steps) * self.steps

    def lockstep(self, works: Sequence[Work], *, processes: int, budget: int) -> list[list[Work]]:
        """Of some steps that stand for all: the largest micro-batch of any process at each place."""
        steps = []
        for shares in self.dealt(processes=processes, budget=budget, at_most=DRAWN_STEPS):
            at_place = zip(*shares, strict=True)
            steps.append([max((_sum(works, members) for members in place), key=_size) for place in at_place])
        return steps

    def largest_micro_batch(self, budget: int) -> int:
        """Tokens of the largest micro-batch: the budget where the pairs fill it, more where one pair alone does."""
        return max(self.longest, min(budget, max(sum(self.tokens_of[row] for row in rows) for rows in self.order)))


def _spread(steps: Sequence[Sequence[int]], at_most: int | None) -> list[Sequence[int]]:
    if at_most is None or len(steps) <= at_most:
        return list(steps)
    return [steps[number * len(steps) // at_most] for number in range(at_most)]


def _sum(works: Sequence[Work], members: Sequence[int]) -> Work:
    total = NO_WORK
    for row in members:
        total = total.plus(works[row])
    return total


def _size(work: Work) -> float:
    return work.body + work.attention + work.head
