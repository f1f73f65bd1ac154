"""The command that shows pairs as the model will see them. It needs the tokenizer and data, and no weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspo_hub.cli.app import RECIPES, JsonOption, RecipeArgument, SetOption, app, show
from inspo_hub.errors import DataError
from inspo_hub.quiet import quieter
from inspo_hub.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.pairs import DataReport, PairSource, PreferencePair, PreparedData, PreviewRow
    from inspo_hub.recipe import DataSource

SPARE_ROWS = 32
"""Rows that are read beyond those asked for, because some may be empty or over-long and left out."""


@app.command(rich_help_panel=RECIPES)
def preview(
    recipe: RecipeArgument,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="Pairs to show, the first of the data.")] = 2,
    row: Annotated[
        list[str], typer.Option("--row", metavar="ROW", help="Show this row, as reports name it; may be repeated.")
    ] = [],  # noqa: B006  (typer reads the default and copies it)
    report: Annotated[bool, typer.Option("--report", help="Read all of the data, and show the data report.")] = False,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Show pairs as the model will see them: decoded segments, what is scored (>) and what is context (|), lengths."""
    from inspo_hub.pairs import render_preview

    loaded = load_recipe(recipe, overrides)
    # The report is shown with the pairs or, of a few rows alone, would be taken for that of the data.
    with quieter("inspo_hub.pairs", logging.WARNING):
        shown = preview_recipe(loaded, rows, named=row, whole=report)
    facts = {name: [each.to_dict() for each in variant.rows] for name, variant in shown.items()}
    reports = {name: variant.report for name, variant in shown.items()} if report else {}
    parts = [
        f"{name}: {_named(loaded, name)}\n\n{render_preview(variant.rows)}"
        for name, variant in shown.items()
        if variant.rows
    ]
    # Twins share their pairs: one report, unless they differ.
    parts += dict.fromkeys(found.text() for found in reports.values())
    show(
        {
            "recipe": str(recipe),
            "variants": facts,
            **({"reports": {name: found.to_dict() for name, found in reports.items()}} if report else {}),
        },
        "\n\n".join(parts),
        as_json=as_json,
    )


@dataclass(frozen=True)
class VariantPreview:
    """What one variant trains on."""

    rows: list[PreviewRow]
    report: DataReport
    """Of the rows that were read."""


def preview_recipe(
    recipe: Recipe, rows: int, *, named: Sequence[str] = (), whole: bool = False
) -> dict[str, VariantPreview]:
    """Usable pairs of every variant, each with the paths that are scored: the first in file order, or the named ones.

    Args:
        rows: how many, where none are named.
        named: row ids, of training or held-out rows.
        whole: read all rows, held-out ones too; where rows are named, that is done in any case.

    Raises:
        DataError: a named row is not among the pairs.
    """
    from inspo_hub.pairs import preview_rows, separator_ids

    variants = recipe.variant_recipes()
    conditioned = any("_given_" in score for variant in variants.values() for score in variant.conditioning.scores)
    tokenizer = _tokenizer(recipe if not recipe.variants else next(iter(variants.values())))
    limit = None if whole or named else rows + SPARE_ROWS
    previews = {}
    for name, variant in variants.items():
        alternative = variant.alternative
        separator = separator_ids(tokenizer, alternative.format, alternative.turn_text)
        prepared = _prepared(variant, limit, tokenizer, separator, conditioned=conditioned)
        pairs = [_find(row_id, prepared) for row_id in named] or _first(rows, variant, prepared)
        shown = preview_rows(
            pairs,
            tokenizer,
            scores=variant.conditioning.needed_scores(with_plain_chosen=variant.objective.needs_plain_chosen),
            separator=separator,
            max_alternative_tokens=alternative.max_tokens,
        )
        previews[name] = VariantPreview(shown, prepared.report)
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


def _sources(sources: Sequence[DataSource], limit: int | None) -> list[PairSource]:
    """The sources on this machine, each cut to its first rows."""
    from inspo_hub import hub
    from inspo_hub.pairs import PairSource

    found = []
    for source in sources:
        path = hub.fetch(hub.resolve("dataset", source.id, source.revision))
        rows = source.limit if limit is None else min(limit, source.limit or limit)
        found.append(replace(PairSource.of(source, local_path=str(path)), id=source.shown_name, limit=rows))
    return found


def _prepared(
    variant: Recipe,
    limit: int | None,
    tokenizer: PreTrainedTokenizerBase,
    separator: Sequence[int],
    *,
    conditioned: bool,
) -> PreparedData:
    """Pairs cut and checked as the run would; held-out rows are told apart where all rows are read."""
    from inspo_hub.pairs import prepare_pairs
    from inspo_hub.recipe import HeldoutFraction

    data = variant.data
    heldout: float | list[PairSource] | None = None
    if limit is None and isinstance(data.heldout, HeldoutFraction):
        heldout = data.heldout.fraction
    elif limit is None and data.heldout and not isinstance(data.heldout, HeldoutFraction):
        heldout = _sources(data.heldout, None)
    return prepare_pairs(
        _sources(data.train, limit),
        tokenizer,
        seed=variant.seed,
        max_length=data.max_length,
        conditioned=conditioned,
        separator=separator,
        max_alternative_tokens=variant.alternative.max_tokens,
        on_overlong=data.on_overlong,
        on_invalid=data.on_invalid,
        heldout=heldout,
        text_format=data.text_format,
        chat_template_kwargs=data.chat_template_kwargs,
    )


def _first(rows: int, variant: Recipe, prepared: PreparedData) -> list[PreferencePair]:
    """The first training pairs in file order."""
    names = [f"{source.shown_name}/{source.split}" for source in variant.data.train]
    train = prepared.train
    order = sorted(range(len(train)), key=lambda index: _file_order(train.row_id(index), names))
    return [train[index] for index in order[:rows]]


def _find(row_id: str, prepared: PreparedData) -> PreferencePair:
    for pairs in (prepared.train, prepared.heldout):
        index = pairs.index_of(row_id)
        if index >= 0:
            return pairs[index]
    raise DataError(
        f"no pair was made of a row {row_id!r}",
        where="--row",
        expected=f"a row as reports and errors name it, such as {prepared.train.row_id(0)}",
        fix="rows that were left out, and why, are in the data report: --report",
    )


def _file_order(row_id: str, names: Sequence[str]) -> tuple[int, int]:
    name, _, number = row_id.rpartition("/")
    return names.index(name), int(number)


def _named(recipe: Recipe, name: str) -> str:
    variant = recipe.variant_recipes()[name]
    return f"{variant.objective.name} × {variant.conditioning.name}"
