"""Keys and values that one pass computes without gradient and another one attends to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class LayerContext(NamedTuple):
    """What a layer's queries see besides the row itself; none of it gets a gradient."""

    key: Float[Tensor, "1 kv_heads context size"]
    value: Float[Tensor, "1 kv_heads context value_size"]
    stopped: Int[Tensor, " stopped"]
    """Row tokens that belong to the context too: their own keys and values get no gradient either."""


@dataclass(frozen=True)
class ContextKeys:
    """A context's keys and values, layer by layer, from its own pass to the end of the backward of what follows it."""

    stopped: Int[Tensor, " stopped"]
    """See `LayerContext.stopped`."""
    _layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    # Not compiled: a layer's id would make a graph of its own for each layer.
    @torch.compiler.disable
    def write(self, layer: nn.Module, key: Tensor, value: Tensor) -> None:
        self._layers[id(layer)] = (key.detach(), value.detach())

    @torch.compiler.disable
    def read(self, layer: nn.Module) -> LayerContext:
        """What `write` kept of this layer. Kept on: gradient checkpointing reads it again in the backward."""
        return LayerContext(*self._layers[id(layer)], self.stopped)
