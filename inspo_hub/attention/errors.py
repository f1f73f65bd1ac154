"""Why an architecture cannot take a tree-packed row."""

from __future__ import annotations

from inspo_hub.errors import TrainingError


class TreeUnsupported(TrainingError):
    """The model's attention cannot be told who sees whom; such a model is packed flat."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            where="attention",
            expected="every layer calls the registered attention function with the row's layout, a causal mask of its "
            "own, and no chunking, position bias or dropout",
            fix="set model.attention: auto, which lets the start-up check choose, or flat",
        )
