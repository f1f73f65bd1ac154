"""One variant of a recipe by its numbers: its model, its pairs, its steps, and its share of the reference pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from inspo_hub.plan.memory import Training
from inspo_hub.plan.timing import NO_WORK, Work
from inspo_hub.plan.workload import Workload
from inspo_hub.views import SCORES, Score

if TYPE_CHECKING:
    from inspo_hub.plan.facts import DataFacts, ModelFacts, PairRow
    from inspo_hub.recipe import Recipe

PLAIN: tuple[Score, ...] = ("chosen", "rejected")


@dataclass(frozen=True, eq=False)
class Variant:
    """A variant's recipe with the facts behind its names."""

    name: str
    recipe: Recipe
    model: ModelFacts
    data: DataFacts
    reference: ModelFacts | None
    """The reference where it is another model than the initial policy."""
    base_adapter: int | None
    """Parameters of the adapter that training starts from, where there is one."""
    workload: Workload = field(repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        recipe: Recipe,
        model: ModelFacts,
        data: DataFacts,
        *,
        reference: ModelFacts | None = None,
        base_adapter: int | None = None,
    ) -> Variant:
        return cls(name, recipe, model, data, reference, base_adapter, Workload.of(recipe, data))

    @cached_property
    def adapter(self) -> int | None:
        """Trained numbers of the recipe's adapter: r·(rows + columns) for each matrix that gets one, DoRA's lengths."""
        section = self.recipe.adapter
        if section is None or self.base_adapter is not None:
            return self.base_adapter
        matrices = [
            shape
            for name, shape in self.model.matrices.items()
            if section.targets is None or name.removesuffix(".weight").endswith(tuple(section.targets))
        ]
        lengths = sum(rows for rows, _ in matrices) if section.use_dora else 0
        return section.rank * sum(rows + columns for rows, columns in matrices) + lengths

    @property
    def trained(self) -> int:
        return self.model.parameters if self.adapter is None else self.adapter

    def training(self, *, on_gpu: bool, checkpointing: bool | None = None) -> Training:
        """Number formats and what is recomputed; the recipe's own where `checkpointing` is None."""
        train, compute = self.recipe.train, self.recipe.model.compute_dtype
        if checkpointing is None:
            checkpointing = on_gpu if train.activation_checkpointing is None else train.activation_checkpointing
        return Training(
            bfloat16=compute == "bfloat16" or (compute == "auto" and on_gpu),
            checkpointing=checkpointing,
            optimizer=train.optimizer,
            adapter=self.adapter,
            quantized=self.recipe.adapter is not None and self.recipe.adapter.quantize is not None,
        )

    def works(self, *, checkpointing: bool = False, kept_bytes: float | None = None) -> list[Work]:
        """FLOPs of each row, forward and backward; see `Packing.work`."""
        packing, shape = self.workload.packing, self.model.shape
        works = [
            packing.work(row, shape, checkpointing=checkpointing, kept_bytes=kept_bytes) for row in self.workload.rows
        ]
        if self.adapter is None:
            return works
        # The products that would give frozen matrices their gradients are left out: one of three, or of four.
        body, own = (2 + checkpointing) / (3 + checkpointing), (6.0 + 2 * checkpointing) * self.adapter
        return [work._replace(body=work.body * body + own * work.tokens, head=work.head * 2 / 3) for work in works]

    @property
    def evaluations(self) -> int:
        """How often the held-out pairs are scored: before the first step, every `eval_every`, after the last."""
        if not self.data.heldout_pairs:
            return 0
        steps = self.workload.steps
        return 1 + steps // min(self.recipe.train.eval_every or steps, steps)

    @property
    def saves(self) -> int:
        """Checkpoints that are written: `save_every`, or about ten in a run."""
        steps = self.workload.steps
        return -(-steps // (self.recipe.train.save_every or max(1, steps // 10)))

    def forward(self, *, train: Sequence[Score] = (), heldout: Sequence[Score] = ()) -> Work:
        """FLOPs of scoring these scores of all training and all held-out pairs once, without gradient."""
        data = self.data
        parts = [(train, data.rows, data.train_pairs), (heldout, data.heldout_rows, data.heldout_pairs)]
        total = NO_WORK
        for scores, rows, pairs in parts:
            if scores and rows:
                total = total.plus(self._forward_rows(rows, tuple(scores)).times(pairs / len(rows)))
        return total

    def _forward_rows(self, rows: Sequence[PairRow], scores: tuple[Score, ...]) -> Work:
        packing, shape = self.workload.packing, self.model.shape
        total = NO_WORK
        for row in rows:
            total = total.plus(packing.work(row, shape, scores=scores, training=False))
        return total


@dataclass(frozen=True, kw_only=True)
class ReferencePass:
    """Scoring pairs with a reference before a variant's training: what no variant before it has scored."""

    variant: str
    train: tuple[Score, ...]
    """Scores of the training pairs; empty where all are cached by then."""
    heldout: tuple[Score, ...]
    pairs: int
    work: Work


def reference_passes(variants: Sequence[Variant]) -> list[ReferencePass]:
    """The passes that remain when variants are trained in turn and every score is cached by its content."""
    known: set[object] = set()
    passes = []
    for variant in variants:
        recipe, data = variant.recipe, variant.data
        if not recipe.objective.uses_reference:
            continue
        context = recipe.reference.context
        needed = {*recipe.conditioning.reference_scores(context), *PLAIN}
        train = tuple(score for score in SCORES if score in needed)
        heldout = (SCORES if context == "conditioned" else PLAIN) if data.heldout_pairs else ()
        train = () if _cached(variant, train, "train", known) else train
        heldout = () if _cached(variant, heldout, "heldout", known) else heldout
        if train or heldout:
            passes.append(
                ReferencePass(
                    variant=variant.name,
                    train=train,
                    heldout=heldout,
                    pairs=bool(train) * data.train_pairs + bool(heldout) * data.heldout_pairs,
                    work=variant.forward(train=train, heldout=heldout),
                )
            )
    return passes


def _cached(variant: Variant, scores: Sequence[Score], pairs: str, known: set[object]) -> bool:
    """Whether all of these scores are known; they are from now on. One that is missing has all of them scored."""
    recipe = variant.recipe
    model = variant.reference.name if variant.reference is not None else variant.model.name
    form = (recipe.adapter is not None, recipe.adapter.quantize if recipe.adapter else None, recipe.model.compute_dtype)
    weights = (model, form, recipe.model.attention)
    # Only a score that is given an alternative depends on how alternatives are presented.
    context = (variant.data.separator, recipe.alternative.model_dump_json())
    keys = {(weights, pairs, score, context if "given" in score else ()) for score in scores}
    cached = keys <= known
    known.update(keys)
    return cached
