"""Measures the backends that can compute a layer's attention, on a row like the run's, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspo_hub import kernels
from inspo_hub.attention.backends import AttentionShape, Backend, backends_for, using_backend
from inspo_hub.attention.context import LayerContext
from inspo_hub.attention.layout import TreeLayout
from inspo_hub.attention.operator import tree_attention
from inspo_hub.kernels import Candidate, Choice

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Largest difference of outputs and gradients from `blocks`, relative to the largest of them."""


def measure_backends(
    shape: AttentionShape, layout: TreeLayout, *, device: torch.device, layers: int = 1, folder: Path | None = None
) -> Choice:
    """The fastest backend for layers of this shape that agrees with plain blocks.

    Args:
        layout: a row like those of the run, on any device.
        layers: how many layers share what a backend prepares for a row.
        folder: where choices are kept for the next run on such a machine.
    """
    names = backends_for(shape)
    if len(names) == 1:
        return Choice(name=names[0])

    def measure() -> Choice:
        row = _Row.draw(shape, layout.to(device), device)
        candidates = [row.candidate(name, layers) for name in names]
        return kernels.choose(candidates, tolerance=_TOLERANCE[shape.dtype], device=device)

    # Rows of about the same length share a choice, whatever pairs they hold.
    length = 2 ** round(math.log2(layout.tokens))
    what = {"attention": shape.to_json(), "tokens": length, "layers": layers, "among": list(names)}
    return kernels.remembered(what, measure, device=device, folder=folder)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Random queries, keys and values of one row, and the gradient of its output."""

    shape: AttentionShape
    layout: TreeLayout
    inputs: Sequence[Tensor]
    grad: Tensor
    context: LayerContext | None

    @classmethod
    def draw(cls, shape: AttentionShape, layout: TreeLayout, device: torch.device) -> _Row:
        random = torch.Generator(device).manual_seed(0)  # the run's own numbers stay as they are

        def tensor(tokens: int, heads: int, size: int) -> Tensor:
            # Tokens before heads in memory, as projections make them.
            drawn = torch.randn(1, tokens, heads, size, dtype=shape.dtype, device=device, generator=random)
            return drawn.transpose(1, 2)

        def keys_and_values(tokens: int) -> tuple[Tensor, Tensor]:
            return tensor(tokens, shape.kv_heads, shape.size), tensor(tokens, shape.kv_heads, shape.value_size)

        nothing_stopped = torch.empty(0, dtype=torch.int64, device=device)
        inputs = (tensor(layout.tokens, shape.heads, shape.size), *keys_and_values(layout.tokens))
        return cls(
            shape=shape,
            layout=layout,
            inputs=[x.requires_grad_() for x in inputs],
            grad=tensor(layout.tokens, shape.heads, shape.value_size).transpose(1, 2),
            context=LayerContext(*keys_and_values(layout.before), nothing_stopped) if layout.before else None,
        )

    def candidate(self, name: Backend, layers: int) -> Candidate:
        scoring = self.shape.scoring

        def run() -> Sequence[Tensor]:
            with using_backend(self.shape, name), torch.enable_grad():
                out = tree_attention(*self.inputs, layout=self.layout, context=self.context, **scoring._asdict())
                return out, *torch.autograd.grad(out, self.inputs, self.grad)

        def build_mask() -> Any:
            from inspo_hub.attention import flex  # as slow to import as torch's compiler

            self.layout.block_masks.clear()
            return flex.block_mask(self.layout, scoring.window, self.grad.device)

        return Candidate(name=name, run=run, prepare=build_mask if name == "flex" else None, runs_per_prepare=layers)
