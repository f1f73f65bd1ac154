"""Models and pairs by their numbers, for tests of the plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.cost import ModelShape
from inspo_hub.plan.facts import DataFacts, ModelFacts, Overlong, PairRow, SourceFacts
from inspo_hub.plan.variants import Variant
from inspo_hub.recipe import Recipe

SMALL = ModelShape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=192, vocab=100, head_dim=16)
EIGHT = ModelShape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14_336, vocab=128_256, head_dim=128)


def model_of(
    shape: ModelShape, *, tied: bool = False, model_type: str = "llama", name: str = "owner/model@0"
) -> ModelFacts:
    """What the headers of a Llama of this shape say."""
    matrices: dict[str, tuple[int, int]] = {}
    for layer in range(shape.layers):
        for matrix, rows, columns in (
            ("self_attn.q_proj", shape.heads * shape.head_dim, shape.hidden),
            ("self_attn.k_proj", shape.kv_heads * shape.head_dim, shape.hidden),
            ("self_attn.v_proj", shape.kv_heads * shape.head_dim, shape.hidden),
            ("self_attn.o_proj", shape.hidden, shape.heads * shape.head_dim),
            ("mlp.gate_proj", shape.intermediate, shape.hidden),
            ("mlp.up_proj", shape.intermediate, shape.hidden),
            ("mlp.down_proj", shape.hidden, shape.intermediate),
        ):
            matrices[f"model.layers.{layer}.{matrix}.weight"] = (rows, columns)
    norms = (2 * shape.layers + 1) * shape.hidden
    embedding = shape.hidden * shape.vocab
    body = sum(rows * columns for rows, columns in matrices.values()) + norms
    total = body + embedding * (1 if tied else 2)
    return ModelFacts(
        name=name,
        model_type=model_type,
        shape=shape,
        parameters=total,
        by_dtype={"BF16": total},
        embedding=embedding,
        head=0 if tied else embedding,
        matrices=matrices,
        download_bytes=2 * total,
    )


def draw_rows(count: int, *, prompt: int = 120, response: int = 280, most: int = 900, seed: int = 0) -> list[PairRow]:
    """Log-normal lengths."""
    draw = random.Random(seed)

    def length(median: int) -> int:
        return min(most, max(2, round(median * 2.718 ** draw.gauss(0, 0.6))))

    return [PairRow(length(prompt), length(response), length(response)) for _ in range(count)]


def data_of(rows: Sequence[PairRow], *, pairs: int | None = None, heldout: int = 0, separator: int = 0) -> DataFacts:
    """Facts of these pairs; of `pairs` of which these are a sample, where that is another number."""
    every = Overlong(rows=0, taken={}, lengths=rows)
    count = pairs or len(rows)
    return DataFacts(
        exact=count == len(rows),
        method="made for a test",
        train_pairs=count,
        heldout_pairs=heldout,
        rows=rows,
        heldout_rows=rows[:heldout] or rows,
        by_conditioning=dict.fromkeys(CONDITIONINGS, every),
        sources=[SourceFacts(name="made", rows=count, rows_known=True, looked_at=len(rows))],
        dropped=0,
        separator=separator,
    )


def recipe_of(**keys: Any) -> Recipe:
    """A recipe with these sections; `train` is merged over what a recipe must say."""
    train = {"lr": 1e-6, **keys.pop("train", {})}
    return Recipe.model_validate(
        {
            "version": 1,
            "name": "planned",
            "model": {"id": "owner/model"},
            "data": {"train": ({"id": "owner/data"},)},
            "train": train,
            **keys,
        }
    )


def variant_of(
    rows: Sequence[PairRow],
    *,
    shape: ModelShape = EIGHT,
    name: str = "planned",
    pairs: int | None = None,
    heldout: int = 0,
    reference_model: ModelFacts | None = None,
    data: DataFacts | None = None,
    **keys: Any,
) -> Variant:
    if heldout:
        keys["data"] = {"train": ({"id": "owner/data"},), "heldout": {"fraction": 0.1}}
    facts = data or data_of(rows, pairs=pairs, heldout=heldout)
    return Variant.of(name, recipe_of(**keys), model_of(shape), facts, reference=reference_model)
