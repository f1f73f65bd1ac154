"""The command that shows pairs as the model will see them. It needs the tokenizer and data, and no weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inspo_hub.cli.app import RECIPES, JsonOption, RecipeArgument, SetOption, app, show
from inspo_hub.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.pairs import PairSource, PreviewRow

SPARE_ROWS = 32
"""Rows that are read beyond those asked for, because some may be empty or over-long and left out."""


@app.command(rich_help_panel=RECIPES)
def preview(
    recipe: RecipeArgument,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Pairs to show, the first of the data.")] = 2,
    overrides: SetOption = [],  # noqa: B006  (typer reads the default and copies it)
    as_json: JsonOption = False,
) -> None:
    """Show pairs as the model will see them: decoded segments, what is scored (>) and what is context (|), lengths."""
    from inspo_hub.pairs import render_preview

    loaded = load_recipe(recipe, overrides)
    # The data report of the few rows that are read here would be taken for that of the data.
    logging.getLogger("inspo_hub.pairs").setLevel(logging.WARNING)
    previews = preview_recipe(loaded, rows)
    facts = {name: [row.to_dict() for row in shown] for name, shown in previews.items()}
    parts = [f"{name}: {_named(loaded, name)}\n\n{render_preview(shown)}" for name, shown in previews.items()]
    show({"recipe": str(recipe), "variants": facts}, "\n\n".join(parts), as_json=as_json)


def preview_recipe(recipe: Recipe, rows: int) -> dict[str, list[PreviewRow]]:
    """The first `rows` usable pairs of every variant, in file order, each with the paths that are scored."""
    from inspo_hub.pairs import preview_rows, separator_ids

    variants = recipe.variant_recipes()
    conditioned = any("_given_" in score for variant in variants.values() for score in variant.conditioning.scores)
    tokenizer = _tokenizer(recipe if not recipe.has_variants else next(iter(variants.values())))
    sources = _sources(recipe, rows + SPARE_ROWS)
    previews = {}
    for name, variant in variants.items():
        alternative = variant.alternative
        separator = separator_ids(tokenizer, alternative.format, alternative.turn_text)
        pairs = _pairs(variant, sources, tokenizer, separator, conditioned=conditioned)
        previews[name] = preview_rows(
            pairs[:rows],
            tokenizer,
            scores=variant.conditioning.needed_scores(with_plain_chosen=variant.objective.needs_plain_chosen),
            separator=separator,
            max_alternative_tokens=alternative.max_tokens,
        )
    return previews


def _tokenizer(variant: Recipe) -> PreTrainedTokenizerBase:
    """All variants have the same one; the recipe has checked it."""
    from inspo_hub import hub
    from inspo_hub.models import load_tokenizer

    model = variant.model
    revision = model.tokenizer_revision or (model.revision if model.tokenizer is None else None)
    pinned = hub.resolve("model", model.tokenizer or model.id, revision)
    return load_tokenizer(
        hub.fetch(pinned, "tokenizer", code=model.trust_remote_code),
        chat_template=Path(model.chat_template) if model.chat_template else None,
        trust_remote_code=model.trust_remote_code,
    )


def _sources(recipe: Recipe, rows: int) -> list[PairSource]:
    from inspo_hub import hub
    from inspo_hub.pairs import PairSource

    sources = []
    for source in recipe.data.train:
        path = hub.fetch(hub.resolve("dataset", source.id, source.revision))
        pair_source = PairSource.of(source, local_path=str(path))
        sources.append(replace(pair_source, limit=min(rows, source.limit or rows)))
    return sources


def _pairs(
    variant: Recipe,
    sources: Sequence[PairSource],
    tokenizer: PreTrainedTokenizerBase,
    separator: Sequence[int],
    *,
    conditioned: bool,
) -> list[Any]:
    """The pairs of these sources in file order, cut and checked as the run would."""
    from inspo_hub.pairs import prepare_pairs

    data = variant.data
    prepared = prepare_pairs(
        sources,
        tokenizer,
        seed=variant.seed,
        max_length=data.max_length,
        conditioned=conditioned,
        separator=separator,
        max_alternative_tokens=variant.alternative.max_tokens,
        on_overlong=data.on_overlong,
        on_invalid=data.on_invalid,
        text_format=data.text_format,
        chat_template_kwargs=data.chat_template_kwargs,
    )
    pairs = [prepared.train[index] for index in range(len(prepared.train))]
    names = [source.name for source in sources]
    return sorted(pairs, key=lambda pair: _file_order(pair.row_id, names))


def _file_order(row_id: str, names: Sequence[str]) -> tuple[int, int]:
    name, _, number = row_id.rpartition("/")
    return names.index(name), int(number)


def _named(recipe: Recipe, name: str) -> str:
    variant = recipe.variant_recipes()[name]
    return f"{variant.objective.name} × {variant.conditioning.name}"
