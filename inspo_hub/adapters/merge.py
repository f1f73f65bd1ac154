"""Merging: the adapter's product is added to the base's matrices, and what remains is a plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """The base with `W + s·B A` in place of `W`, in the base's own dtype; the adapter is gone.

    Equivalent to `W.add_(s * B @ A)` layer by layer; DoRA's magnitudes are multiplied in.
    """
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    return merged
