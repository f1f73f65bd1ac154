"""Which kernels compute a model's attention and the softmax of its head: measured on a row like the run's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspo_hub.attention import AttentionShape, TreeLayout, backends_for, measure_backends, use_backend
from inspo_hub.kernels import Choice
from inspo_hub.logprobs.model import prepared_state
from inspo_hub.logprobs.softmax import measure_softmax, softmax_kernels, use_softmax_kernel


@dataclass(frozen=True, kw_only=True)
class ModelKernels:
    """The kernels that a model's forward and backward take."""

    attention: Mapping[AttentionShape, Choice]
    softmax: Choice
    vocab: int

    def use(self, device: torch.device) -> None:
        """Take them from now on, in this process."""
        for shape, choice in self.attention.items():
            use_backend(shape, choice.name)  # type: ignore[arg-type]
        use_softmax_kernel(device, self.vocab, self.softmax.name)  # type: ignore[arg-type]

    def __str__(self) -> str:
        told = dict.fromkeys(f"attention by {choice}" for choice in self.attention.values())
        return "; ".join([*told, f"softmax by {self.softmax}"])

    def to_json(self) -> dict[str, Any]:
        attention = [{"shape": shape.to_json(), **choice.to_json()} for shape, choice in self.attention.items()]
        return {"attention": attention, "softmax": self.softmax.to_json()}


def has_choice(shapes: Mapping[AttentionShape, int], device: torch.device) -> bool:
    """Whether there is anything to measure: on a CPU one kernel computes each."""
    return len(softmax_kernels(device)) > 1 or any(len(backends_for(shape)) > 1 for shape in shapes)


def layers_by_shape(shapes: tuple[AttentionShape, ...], compute_dtype: torch.dtype) -> Counter[AttentionShape]:
    """How many layers ask for each shape, in the dtype that a run computes in."""
    return Counter(shape._replace(dtype=compute_dtype) for shape in shapes)


def measure_kernels(
    model: nn.Module,
    layers: Mapping[AttentionShape, int],
    layout: TreeLayout | None,
    *,
    device: torch.device,
    folder: Path | None = None,
) -> ModelKernels:
    """The fastest kernels of a prepared model that agree with plain torch.

    Args:
        layers: how many layers ask for each shape of attention; see `layers_by_shape`.
        layout: a row like those of the run; None where the model's own attention computes flat rows.
        folder: where choices are kept for the next run on such a machine.
    """
    prepared = prepared_state(model)
    assert prepared is not None
    attention = {
        shape: measure_backends(shape, layout, device=device, layers=count, folder=folder)
        for shape, count in layers.items()
        if layout is not None
    }
    if prepared.head.transform is None:  # the model's own code computes its head
        return ModelKernels(attention=attention, softmax=Choice(name="torch"), vocab=0)
    vocab = prepared.head.model.get_output_embeddings().weight.shape[0]
    softmax = measure_softmax(vocab, device=device, folder=folder)
    return ModelKernels(attention=attention, softmax=softmax, vocab=vocab)
