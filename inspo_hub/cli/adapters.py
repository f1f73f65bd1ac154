"""Commands about adapters: merge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from inspo_hub.cli.app import TRAINING, JsonOption, app, show


class WeightType(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@app.command(rich_help_panel=TRAINING)
def merge(
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT", help="Output folder with an adapter, or a published adapter.", show_default=False
        ),
    ],
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to; otherwise OUTPUT/merged.")
    ] = None,
    dtype: Annotated[
        WeightType, typer.Option("--dtype", help="Of the written weights; float32 rounds nothing.")
    ] = WeightType.float32,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="DIR", help="The base model, where it is no longer where the run had it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Merge a trained adapter into its base: a whole model that plain transformers loads."""
    from inspo_hub.exporting import merge_output

    merged = merge_output(output, target, dtype=dtype.value, base=base)
    text = (
        f"merged into {merged.folder}\n  base: {merged.base}\n"
        f"  logits equal those of base and adapter within {merged.difference:.1e}"
    )
    show(merged.to_dict(), text, as_json=as_json)
