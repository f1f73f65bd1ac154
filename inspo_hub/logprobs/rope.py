"""Rotary embeddings whose frequencies depend on the longest position of a whole batch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from inspo_hub.packing import PackedBatch

log = logging.getLogger(__name__)


def rope_switch(config: PretrainedConfig) -> int | None:
    """The longest path that a model reads with its original frequencies; None where frequencies never change.

    `dynamic` and `longrope` embeddings change all positions' frequencies once one position of the batch is beyond it.
    """
    text: Any = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if parameters.get("rope_type") == "longrope":
        original = parameters.get("original_max_position_embeddings")
        return original or getattr(text, "original_max_position_embeddings", None) or text.max_position_embeddings
    return text.max_position_embeddings if parameters.get("rope_type") == "dynamic" else None


class RopeWatch:
    """Says once where a batch is long enough to change its shorter paths' scores."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.switch = rope_switch(config)
        self._said = False

    def look(self, batch: PackedBatch) -> None:
        if self.switch is None or self._said or batch.longest_path <= self.switch:
            return
        self._said = True
        log.warning(
            "a path of %d tokens is beyond %d, where this model changes its rotary frequencies for the whole batch: "
            "shorter paths packed with it are scored with the long ones' frequencies (a padded batch does the same); "
            "set data.max_length to at most %d to keep scores independent of what is packed together",
            batch.longest_path,
            self.switch,
            self.switch,
        )
