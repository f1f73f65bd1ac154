"""Where models run: ZeroGPU lends a GPU for the length of a call; elsewhere nothing is wrapped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

# By name: elsewhere the package is not installed, and in a checkout `spaces` is a folder.
spaces: Any = import_module("spaces") if os.environ.get("SPACES_ZERO_GPU") else None

if TYPE_CHECKING:
    from inspo_hub.space.config import SamplingSection
    from inspo_hub.space.rewards import Rewards
    from inspo_hub.space.rounds import Message, Piece
    from inspo_hub.space.service import Backend

SECONDS = 60
"""Asked of ZeroGPU for one comparison; a shorter wish is served sooner."""


def on_gpu(backend: Backend) -> Backend:
    """The backend, its calls run where ZeroGPU gives them a GPU; the same object anywhere else."""
    return backend if spaces is None else _Lent(backend)


class _Lent:
    """Arguments and results are pickled into another process; the models stay where they were loaded."""

    def __init__(self, backend: Backend) -> None:
        def stream(conversation: Sequence[Message], sampling: SamplingSection) -> Iterator[Mapping[str, Piece]]:
            yield from backend.stream(conversation, sampling)

        def rewards(conversation: Sequence[Message], answers: Mapping[str, Piece]) -> Rewards | None:
            return backend.rewards(conversation, answers)

        self.stream = spaces.GPU(stream, duration=SECONDS)
        self.rewards = spaces.GPU(rewards, duration=SECONDS)


def where(backend: str) -> str:
    """What the page says about where answers come from."""
    if backend == "endpoint":
        return "inference endpoints"
    if spaces is not None:
        return "ZeroGPU"
    if backend == "precomputed":
        return "precomputed"
    import torch

    return "GPU" if torch.cuda.is_available() else "CPU"
