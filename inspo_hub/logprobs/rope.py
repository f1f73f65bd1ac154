"""Rotary embeddings whose frequencies depend on the longest position of a whole batch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from inspo_hub.errors import TrainingError

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
        """Logs a warning, once.

        Raises:
            TrainingError: the batch is read in two passes, which would not have the same frequencies.
        """
        if self.switch is None or batch.longest_path <= self.switch:
            return
        if batch.context is not None:
            raise TrainingError(
                f"a path of {batch.longest_path} tokens is beyond {self.switch}, where this model changes its rotary "
                "frequencies: a context that was read before would have other ones than what follows it",
                where="alternative.gradient",
                expected=f"paths of at most {self.switch} tokens where the gradient stops at the alternative",
                fix=f"set data.max_length: {self.switch}, or alternative.gradient: full",
            )
        if self._said:
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
