"""Datasets -> `PreferencePair` token ids. Importing the package imports neither torch nor datasets."""

from __future__ import annotations

from inspo_hub.pairs.types import PreferencePair

__all__ = ["PreferencePair"]
