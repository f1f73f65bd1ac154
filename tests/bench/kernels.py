"""Every kernel that can compute a model's attention and its head's softmax on this device, measured as by a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from inspo_hub.attention import AttentionShape, measure_backends
from inspo_hub.attention.blockwise import Scoring
from inspo_hub.kernels import Choice
from inspo_hub.logprobs.softmax import measure_softmax
from inspo_hub.packing import pack_pairs
from tests.bench.attention import SCORES
from tests.bench.case import Case
from tests.bench.lengths import bench_pairs
from tests.bench.machine import describe

DEFAULT_SHAPES = ("0.5b", "1.5b", "8b")


@dataclass(frozen=True, kw_only=True)
class Measured:
    shape: str
    part: str
    choice: Choice

    def to_json(self) -> dict[str, Any]:
        return {"shape": self.shape, "part": self.part, **self.choice.to_json()}


def measure(shapes: tuple[str, ...], *, pairs: int, device: torch.device) -> Iterator[Measured]:
    """One row of UltraFeedback-like pairs, forward and backward, in the device's usual dtype."""
    for name in shapes:
        case = Case(shape=name, pairs=pairs).on(device)
        model = case.model
        drawn = bench_pairs(case.lengths, pairs=pairs, max_length=2048, vocab=model.vocab, batch=pairs, seed=0)
        layout = pack_pairs(drawn, SCORES).layout
        assert layout is not None, "packed as a tree"
        size = model.hidden // model.heads
        for what, softcap in (("attention", 0.0), ("attention, soft-cap 50", 50.0)):
            scoring = Scoring(size**-0.5, softcap, 0)
            shape = AttentionShape(device.type, case.torch_dtype, model.heads, model.kv_heads, size, size, scoring)
            choice = measure_backends(shape, layout, device=device, layers=model.layers)
            yield Measured(shape=name, part=f"{what}, {layout.tokens:,} tokens", choice=choice)
        yield Measured(
            shape=name, part=f"softmax, {model.vocab:,} tokens", choice=measure_softmax(model.vocab, device=device)
        )


def markdown(found: list[Measured]) -> str:
    machine = describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['gpu'] or machine['cpu']}, {versions}; medians of interleaved runs.",
        "",
        "| shape | part | chosen | milliseconds | refused |",
        "|---|---|---|---|---|",
    ]
    for each in found:
        times = (
            ", ".join(f"{name} {ms:.2f}" for name, ms in each.choice.milliseconds.items()) or "the only one there is"
        )
        refused = "; ".join(f"{name}: {why}" for name, why in each.choice.refused.items())
        lines.append(f"| {each.shape} | {each.part} | **{each.choice.name}** | {times} | {refused} |")
    return "\n".join(lines) + "\n"
