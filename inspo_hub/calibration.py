"""How fast this machine is, measured: steps of a random model of the same shape, explained by their FLOPs.

Four numbers are fitted to a handful of packed batches that differ in what they spend their time on: seconds per FLOP of
the layers, of attention and of the head, and seconds per micro-batch. No weights, pairs or runs of the user take part,
so that what is predicted with them can be held against a real run.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from inspo_hub.cost import ModelShape, pair_flops
from inspo_hub.logprobs import prepare_model, tree_losses
from inspo_hub.packing import PackedBatch, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.plan.estimate import Here
from inspo_hub.plan.hardware import Flavour
from inspo_hub.plan.timing import OPTIMIZER_TRAFFIC, Speed, Work
from inspo_hub.plan.variants import Variant
from inspo_hub.stopwatch import seconds_of
from inspo_hub.views import Score, TreeLogps

MEASURED_LAYERS = 4
"""Layers of the model that is timed: every one costs the same, and a few fit anywhere."""
TOKENS = {"cpu": 2048, "cuda": 8192}
"""Tokens of the largest batch."""
ROUNDS = 5
_PLAIN: tuple[Score, ...] = ("chosen", "rejected")
_CONDITIONED: tuple[Score, ...] = ("chosen_given_rejected", "rejected_given_chosen")

Clock = Callable[[], float]


def measure_here(variants: Sequence[Variant]) -> Here:
    """This machine as one that a plan can estimate: its memory and the speed of the variants' model on it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = variants[0].training(on_gpu=device.type == "cuda")
    speed = measure_speed(variants[0].model.shape, device=device, bfloat16=training.bfloat16)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    flavour = Flavour(
        name="this machine",
        usd_per_hour=0.0,
        vcpus=os.cpu_count() or 1,
        ram_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        disk_gb=shutil.disk_usage(Path.cwd()).free / 1e9,
        gpus=int(device.type == "cuda"),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        gpu_gb=memory / 1e9,
    )
    return Here(flavour, speed)


def measure_speed(
    shape: ModelShape,
    *,
    device: torch.device,
    bfloat16: bool = False,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> Speed:
    """The speed of a decoder of this shape here, without activation checkpointing.

    Args:
        clock: seconds; `time.process_time` with one thread does not count what other programs do meanwhile.
    """
    small = replace(shape, layers=min(shape.layers, MEASURED_LAYERS), body_params=None)
    model = random_model(small, device)
    cases = calibration_cases(TOKENS[device.type])
    batches = [case.batch(small.vocab).to(device) for case in cases]
    steps = [partial(step, model, batch, bfloat16=bfloat16) for batch in batches]
    seconds = interleaved_seconds(steps, device, rounds=rounds, clock=clock)
    body, attention, head, constant = fit([case.work(small) for case in cases], seconds)
    return Speed(
        body=1 / body,
        attention=1 / (attention or body),
        head=1 / (head or body),
        per_micro_batch_s=constant,
        optimizer_bytes_per_s=_optimizer_rate(model, device, clock, rounds),
        measured=True,
    )


@dataclass(frozen=True)
class Case:
    """Pairs of these lengths in one packed row."""

    lengths: Sequence[tuple[int, int, int]]
    """Prompt, chosen and rejected tokens."""
    scores: tuple[Score, ...]
    separator: int = 0

    def batch(self, vocab: int) -> PackedBatch:
        """The row with random ids."""
        draw = np.random.default_rng(0)

        def ids(count: int) -> list[int]:
            return [int(token) for token in draw.integers(0, vocab, size=count)]

        pairs = [PreferencePair(prompt=ids(x), chosen=ids(w), rejected=ids(r)) for x, w, r in self.lengths]
        return pack_pairs(pairs, conditioning=self.scores, separator=ids(self.separator))

    def work(self, shape: ModelShape) -> Work:
        """FLOPs of its forward and backward."""
        flops = [
            pair_flops(shape, each, scores=self.scores, separator=self.separator, head_recomputed=False)
            for each in self.lengths
        ]
        body, attention, head = (
            float(sum(getattr(each, part) for each in flops)) for part in ("body", "attention", "head")
        )
        return Work(0.0, body, attention, head)


def calibration_cases(tokens: int) -> list[Case]:
    """Rows that tell layers, attention, head and overhead apart; the largest have about this many tokens.

    Lengths differ within a row, as those of real pairs do: blocks of one size are faster than blocks of many.
    """
    draw = random.Random("lengths of a calibration")

    def pairs(count: int, prompt: int, response: int) -> list[tuple[int, int, int]]:
        def near(length: int) -> int:
            return max(2, round(length * draw.uniform(0.4, 1.6)))

        return [(near(prompt), near(response), near(response)) for _ in range(count)]

    return [
        Case(pairs(1, tokens - 48, 16), _PLAIN),  # one long path, hardly any head
        Case(pairs(8, tokens // 8 - 48, 16), _PLAIN),  # the same tokens on shorter paths
        Case(pairs(4, 8, tokens // 8), _PLAIN),  # all of them scored
        Case(pairs(2, tokens // 4, tokens // 16), _CONDITIONED),
        Case(pairs(4, 8, tokens // 16), _CONDITIONED),
        Case(pairs(max(1, tokens // 112), 16, 24), _CONDITIONED),
        Case(pairs(max(1, tokens // 448), 16, 24), _CONDITIONED),
        Case(pairs(1, 16, 24), _CONDITIONED),
    ]


def interleaved_seconds(
    actions: Sequence[Callable[[], None]], device: torch.device, *, rounds: int, clock: Clock
) -> list[float]:
    """Least seconds of each action over the rounds; every round runs all of them, on the same machine."""
    taken: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 1):
        for place, action in enumerate(actions):
            seconds = seconds_of(action, device, clock)
            if number:  # the first round warms up
                taken[place].append(seconds)
    return [min(seconds) for seconds in taken]


def fit(works: Sequence[Work], seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """Seconds per FLOP of layers, attention and head, and per micro-batch: least relative squares, none below 0.

    Equivalent to `scipy.optimize.nnls` on the rows divided by their seconds; with four unknowns every set of them that
    are not 0 can be tried.
    """
    taken = np.asarray(seconds)
    features = np.array([[*work[1:], 1.0] for work in works]) / taken[:, None]
    scale = np.maximum(np.abs(features).max(axis=0), 1e-300)
    best, best_error = np.zeros(4), np.inf
    for size in range(1, 5):
        for chosen in itertools.combinations(range(4), size):
            found, *_ = np.linalg.lstsq((features / scale)[:, chosen], np.ones(len(taken)), rcond=None)
            if (found < 0).any():
                continue
            error = float(((features / scale)[:, chosen] @ found - 1).__pow__(2).sum())
            if error < best_error:
                best, best_error = np.zeros(4), error
                best[list(chosen)] = found
    body, attention, head, constant = (best / scale).tolist()
    assert body > 0, "a step that takes no time in the layers"
    return body, attention, head, constant


def random_model(shape: ModelShape, device: torch.device) -> nn.Module:
    """A Llama of this shape with random weights, ready for packed rows."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        max_position_embeddings=2 * max(TOKENS.values()),
        bos_token_id=None,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.to(device)  # type: ignore[arg-type]
    return prepare_model(model).train()


def step(model: nn.Module, batch: PackedBatch, *, bfloat16: bool = False) -> None:
    """Forward and backward of one row, through the head that a training uses."""
    kind = next(model.parameters()).device.type

    def losses(logps: TreeLogps, pairs: slice) -> Tensor:
        return torch.stack([logps.get(score) for score in batch.scores]).sum(dim=0)

    with torch.autocast(kind, torch.bfloat16, enabled=bfloat16):
        scored = tree_losses(model, batch, losses, scores=batch.scores)
    scored.total.backward()


def _optimizer_rate(model: nn.Module, device: torch.device, clock: Clock, rounds: int) -> float:
    """Bytes per second of AdamW's step with clipping, as `timing` counts its traffic."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step()
    seconds: Float[np.ndarray, " rounds"] = np.array([seconds_of(step, device, clock) for _ in range(rounds)])
    count = sum(parameter.numel() for parameter in model.parameters())
    return OPTIMIZER_TRAFFIC * count / float(seconds.min())
