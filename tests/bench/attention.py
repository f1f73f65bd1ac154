"""Attention alone: the tree's, forward and backward, against the same paths as separate sequences."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from inspo_hub.attention import tree_attention
from inspo_hub.packing import context_and_response, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import Score
from tests.bench.lengths import bench_pairs
from tests.bench.machine import describe

SCORES: tuple[Score, Score] = ("chosen_given_rejected", "rejected_given_chosen")
HEADS = ((8, 8, 32), (8, 8, 64), (8, 2, 64))
"""Query heads, key heads, head size."""
PAIRS = 4


@dataclass(kw_only=True)
class Comparison:
    """Processor seconds by shape, length law and side."""

    seconds: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)

    def ratio(self, key: tuple[str, str], side: str) -> float:
        sides = self.seconds[key]
        return statistics.median(a / b for a, b in zip(sides["tree"], sides[side], strict=True))

    def to_json(self) -> list[dict[str, Any]]:
        return [{"lengths": law, "heads": heads, "seconds": sides} for (law, heads), sides in self.seconds.items()]

    def markdown(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in describe()["versions"].items())
        lines = [
            f"{describe()['cpu']}, 1 thread, {versions}; a row of {PAIRS} pairs, forward and backward, medians of "
            f"{len(next(iter(self.seconds.values()))['tree'])} interleaved rounds.",
            "",
            "| lengths | heads × key heads × size | tree, ms | ÷ separate sequences | ÷ no context shared or seen |",
            "|---|---|---|---|---|",
        ]
        for (law, heads), sides in self.seconds.items():
            cells = (f"{self.ratio((law, heads), side):.2f}" for side in ("separate", "runs"))
            lines.append(f"| {law} | {heads} | {1000 * statistics.median(sides['tree']):.0f} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def compare(
    *, runs: int, max_length: int = 2048, laws: tuple[str, ...] = ("ultrafeedback", "long_prompts")
) -> Comparison:
    """Times the three on every shape of heads."""
    comparison = Comparison()
    for law in laws:
        pairs = bench_pairs(law, pairs=PAIRS, max_length=max_length, vocab=1024, batch=PAIRS, seed=0)
        for heads, kv_heads, size in HEADS:
            sides = _sides(pairs, heads, kv_heads, size)
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for run in range(runs + 1):
                for name, step in sides.items():
                    start = time.process_time()
                    step()
                    if run:  # the first round warms up
                        seconds[name].append(time.process_time() - start)
            comparison.seconds[law, f"{heads} × {kv_heads} × {size}"] = seconds
    return comparison


def _sides(pairs: list[PreferencePair], heads: int, kv_heads: int, size: int) -> dict[str, Callable[[], None]]:
    """`tree` is ours; `separate` lays every path out by itself; `runs` is what no attention over these tokens beats."""
    batch = pack_pairs(pairs, SCORES)
    paths = [context_and_response(pair, score) for pair in pairs for score in SCORES]
    own = [(len(p.prompt) + len(p.rejected) + len(p.chosen), len(p.chosen) + len(p.rejected)) for p in pairs]
    row = _Inputs.draw(batch.tokens, heads, kv_heads, size)
    separate = [_Inputs.draw(len(context) + len(response), heads, kv_heads, size) for context, response in paths]
    runs = [_Inputs.draw(length, heads, kv_heads, size) for pair in own for length in pair]
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, is_causal=True, training=True)
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def tree() -> None:
        row.backward(tree_attention(*row.projected(), layout=batch.layout, scale=size**-0.5))

    def apart(sequences: list[_Inputs]) -> Callable[[], None]:
        def step() -> None:
            for inputs in sequences:
                inputs.backward(sdpa(module, *inputs.projected(), None, scaling=size**-0.5)[0])

        return step

    return {"tree": tree, "separate": apart(separate), "runs": apart(runs)}


@dataclass(frozen=True)
class _Inputs:
    """Query, key and value as projections make them, tokens before heads in memory, and the output's gradient."""

    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor

    @classmethod
    def draw(cls, tokens: int, heads: int, kv_heads: int, size: int) -> _Inputs:
        query, grad = torch.randn(1, tokens, heads, size, requires_grad=True), torch.randn(1, tokens, heads, size)
        key, value = (torch.randn(1, tokens, kv_heads, size, requires_grad=True) for _ in range(2))
        return cls(query, key, value, grad)

    def projected(self) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (x.transpose(1, 2) for x in (self.query, self.key, self.value))
        return query, key, value

    def backward(self, out: Tensor) -> None:
        torch.autograd.grad(out, (self.query, self.key, self.value), self.grad.view_as(out))
