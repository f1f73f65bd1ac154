"""What every side is: something that runs one step, and says what it computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from inspo_hub.packing import Layout
from inspo_hub.views import AlternativeGradient

_OPTIONS = ("checkpointing", "flat", "recomputed", "stopped", "observed", "compiled")


class SideUnavailable(Exception):
    """A side that cannot run here; the report says why."""


class Side(Protocol):
    computes: str
    """Sides of the same label must agree in loss and gradient; empty where nobody else computes the same."""
    holds_reference: bool
    """Whether a second model is in memory."""
    note: str
    """What the report adds to the name; mostly empty."""

    def step(self) -> Tensor:
        """Lays the pairs out and runs forward, loss and backward; returns the mean loss of the pairs."""


@dataclass(frozen=True, kw_only=True)
class SideName:
    """A side as the command line writes it: `name[@batch]`, and any of the options, each after a colon."""

    name: str
    batch: int | None = None
    checkpointing: bool = False
    layout: Layout = "tree"
    recomputed: bool = False
    """Ours only: the head's logits are computed again in the backward, as for objectives that couple pairs."""
    stopped: bool = False
    """Ours only: the gradient stops at prompt and alternative."""
    observed: bool = False
    """Ours only: scores that the layout gives away are read as well, without gradient, as in a logged step."""
    compiled: bool = False
    """Ours only: decoder layers compiled, as `train.compile` does it."""

    @property
    def alternative_gradient(self) -> AlternativeGradient:
        return "stopped" if self.stopped else "full"

    @classmethod
    def parse(cls, text: str) -> SideName:
        head, *options = text.split(":")
        name, _, batch = head.partition("@")
        unknown = set(options) - set(_OPTIONS)
        if unknown:
            raise ValueError(f"side {text!r}: unknown option {sorted(unknown)}; known are {', '.join(_OPTIONS)}")
        return cls(
            name=name,
            batch=int(batch) if batch else None,
            checkpointing="checkpointing" in options,
            layout="flat" if "flat" in options else "tree",
            recomputed="recomputed" in options,
            stopped="stopped" in options,
            observed="observed" in options,
            compiled="compiled" in options,
        )


def batches(pairs: int, size: int) -> Iterator[range]:
    """Consecutive batches of `size` pairs, the last one smaller where they do not come out even."""
    for first in range(0, pairs, size):
        yield range(first, min(first + size, pairs))
