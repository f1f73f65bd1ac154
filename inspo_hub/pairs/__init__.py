"""Datasets -> `PreferencePair` token ids. Importing the package imports neither torch nor datasets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inspo_hub.pairs.types import PairSource, PreferencePair

if TYPE_CHECKING:
    from inspo_hub.pairs.load import load_rows
    from inspo_hub.pairs.prepare import PreparedData, prepare_pairs
    from inspo_hub.pairs.preview import PreviewRow, preview_rows, render_preview
    from inspo_hub.pairs.report import DataReport
    from inspo_hub.pairs.store import PairSet
    from inspo_hub.pairs.template import DEFAULT_TURN_TEXT, check_vocabulary, separator_ids

# Public name -> the module that defines it, imported at first use: these need numpy, tokenizers or datasets.
_LAZY = {
    "DEFAULT_TURN_TEXT": "template",
    "DataReport": "report",
    "PairSet": "store",
    "PreparedData": "prepare",
    "check_vocabulary": "template",
    "PreviewRow": "preview",
    "load_rows": "load",
    "prepare_pairs": "prepare",
    "preview_rows": "preview",
    "render_preview": "preview",
    "separator_ids": "template",
}
__all__ = [
    "DEFAULT_TURN_TEXT",
    "DataReport",
    "PairSet",
    "PairSource",
    "PreferencePair",
    "PreparedData",
    "PreviewRow",
    "check_vocabulary",
    "load_rows",
    "prepare_pairs",
    "preview_rows",
    "render_preview",
    "separator_ids",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'inspo_hub.pairs' has no attribute {name!r}")
    return getattr(import_module(f"inspo_hub.pairs.{_LAZY[name]}"), name)
