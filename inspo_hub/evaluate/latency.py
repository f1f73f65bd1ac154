"""Time and memory of answering with π(·|x): a trained model beside its base, round by round in one process.

What conditioning changed is in the weights alone: the same architecture, as many parameters, the same number formats,
the same code. That is checked from the files; that it takes the same time is measured, with the spread.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import GenerationConfig

from inspo_hub.evaluate.generation import only_these_settings
from inspo_hub.evaluate.systems import System, Systems
from inspo_hub.stopwatch import seconds_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_UP, MIN_ROUNDS = 1, 6
_NOT_ARCHITECTURE = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""What a saved config says that has nothing to do with what is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyWorkload:
    """What is timed: prompts of one length, answered greedily to one length."""

    prompt_tokens: int = 256
    new_tokens: int = 64
    batch_size: int = 1
    rounds: int = 20

    def __post_init__(self) -> None:
        assert self.rounds >= MIN_ROUNDS, "fewer rounds know no median to 95 %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median with an interval around it."""

    median: float
    low: float
    high: float

    @classmethod
    def middle_half(cls, values: Sequence[float]) -> Spread:
        """Between the quartiles: how much the rounds scatter."""
        low, high = np.quantile(values, [0.25, 0.75])
        return cls(median=statistics.median(values), low=float(low), high=float(high))

    @classmethod
    def of_the_median(cls, values: Sequence[float], level: float = 0.95) -> Spread:
        """How well the median is known: the sign test's interval, whatever the distribution (all of few rounds)."""
        ordered, outside, below = sorted(values), 0, 0.0
        while 2 * (below + math.comb(len(ordered), outside) / 2 ** len(ordered)) <= 1 - level:
            below += math.comb(len(ordered), outside) / 2 ** len(ordered)
            outside += 1
        low, high = ordered[max(0, outside - 1)], ordered[min(len(ordered) - 1, len(ordered) - outside)]
        return cls(median=statistics.median(ordered), low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model is, from its files and its tensors."""

    architecture: str
    parameters: int
    dtypes: Mapping[str, int]
    """Number format on disk -> parameters in it."""
    weight_bytes: int
    """In memory, as it was timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One system's rounds: times with the middle half of them, ratios to the base's time of the same round."""

    first_token_s: Spread
    """From the prompt to its first new token."""
    token_s: Spread
    """Each further token of the batch."""
    first_token_ratio: Spread
    token_ratio: Spread
    peak_bytes: int | None
    """Allocated on the GPU at most while answering, weights of both systems in it; None on a CPU."""

    @property
    def verdict(self) -> str:
        """What the interval of the median ratio of a token's time says, in words."""
        if self.token_ratio.low <= 1 <= self.token_ratio.high:
            return "no difference"
        return "slower than the base" if self.token_ratio.median > 1 else "faster than the base"


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """The base and every variant."""

    workload: LatencyWorkload
    device: str
    base: Footprint
    footprints: Mapping[str, Footprint]
    differences: Mapping[str, tuple[str, ...]]
    """Variant -> what is not the same as in the base; empty where all is."""
    timings: Mapping[str, Timing]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "workload": asdict(self.workload),
            "device": self.device,
            "base": asdict(self.base),
            "variants": {
                name: {
                    **asdict(self.footprints[name]),
                    "differences": list(self.differences[name]),
                    **asdict(timing),
                    "verdict": timing.verdict,
                }
                for name, timing in self.timings.items()
            },
        }


def measure_latency(
    base: System,
    variants: Mapping[str, System],
    workload: LatencyWorkload,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> LatencyResult:
    """Times each variant and the base in turn; both are in memory then, and nothing else."""
    held = Systems(dtype=dtype, device=device)
    footprints, differences, timings = {}, {}, {}
    with held.open(base) as base_model:
        base_print = footprint(base, base_model)
        for name, system in variants.items():
            with Systems(dtype=dtype, device=device).open(system) as model:
                footprints[name] = footprint(system, model)
                differences[name] = tuple(_differences(base, base_print, system, footprints[name]))
                timings[name] = _time(base_model, model, workload, seed)
            del model  # before the next one is loaded
        device_name = torch.cuda.get_device_name(held.device) if held.device.type == "cuda" else held.device.type
    return LatencyResult(
        workload=workload,
        device=device_name,
        base=base_print,
        footprints=footprints,
        differences=differences,
        timings=timings,
    )


# --- the same model?


def footprint(system: System, model: PreTrainedModel) -> Footprint:
    """What is in the files of a whole model, and in memory. An adapter's files are its base's and its own."""
    folders = [system.model, *([system.adapter] if system.adapter is not None else [])]
    dtypes: dict[str, int] = {}
    for folder in folders:
        for numbers, dtype in _tensors(folder):
            dtypes[dtype] = dtypes.get(dtype, 0) + numbers
    return Footprint(
        architecture=type(model).__name__,
        parameters=sum(dtypes.values()),
        dtypes=dtypes,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.parameters()),
    )


def _tensors(folder: Path) -> Iterator[tuple[int, str]]:
    """Numbers and format of every tensor in a folder's safetensors files, from their headers."""
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield int(np.prod(tensor["shape"])), str(tensor["dtype"])


def _differences(base: System, of_base: Footprint, system: System, found: Footprint) -> Iterator[str]:
    """What a trained model does not have in common with its base, in words."""
    if system.adapter is not None:
        yield "an adapter beside the base's matrices; `inspo-hub merge` makes one model of them, as large as the base"
        return
    if found.architecture != of_base.architecture:
        yield f"{found.architecture}, where the base is {of_base.architecture}"
    configs = [json.loads((each.model / "config.json").read_text(encoding="utf-8")) for each in (base, system)]
    for key in sorted({*configs[0], *configs[1]} - _NOT_ARCHITECTURE):
        if key in configs[0] and configs[0][key] != configs[1].get(key):
            yield f"config.json: {key} is {configs[1].get(key)!r}, in the base {configs[0][key]!r}"
    if found.parameters != of_base.parameters:
        yield f"{found.parameters:,} parameters, in the base {of_base.parameters:,}"
    if set(found.dtypes) != set(of_base.dtypes):
        yield f"stored as {', '.join(sorted(found.dtypes))}, the base as {', '.join(sorted(of_base.dtypes))}"


# --- the same time?


def _time(base: PreTrainedModel, model: PreTrainedModel, workload: LatencyWorkload, seed: int) -> Timing:
    """Base and model in turn on the same prompts, the order changing from round to round."""
    vocabulary = int(base.config.get_text_config().vocab_size)
    draw = torch.Generator().manual_seed(seed)
    shape = (workload.batch_size, workload.prompt_tokens)
    prompts = torch.randint(vocabulary, shape, generator=draw).to(base.device)
    first: dict[str, list[float]] = {"base": [], "model": []}
    rest: dict[str, list[float]] = {"base": [], "model": []}
    peak = 0
    for number in range(WARM_UP + workload.rounds):
        order = [("base", base), ("model", model)]
        for name, each in order if number % 2 == 0 else order[::-1]:
            if base.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(base.device)
            one, all_of_them = (_seconds(each, prompts, tokens) for tokens in (1, workload.new_tokens))
            if name == "model" and base.device.type == "cuda":
                peak = max(peak, torch.cuda.max_memory_allocated(base.device))
            if number >= WARM_UP:
                first[name].append(one)
                rest[name].append((all_of_them - one) / (workload.new_tokens - 1))
    return Timing(
        first_token_s=Spread.middle_half(first["model"]),
        token_s=Spread.middle_half(rest["model"]),
        first_token_ratio=Spread.of_the_median(_ratios(first)),
        token_ratio=Spread.of_the_median(_ratios(rest)),
        peak_bytes=peak or None,
    )


def _ratios(seconds: Mapping[str, list[float]]) -> list[float]:
    return [mine / bases for mine, bases in zip(seconds["model"], seconds["base"], strict=True)]


def _seconds(model: PreTrainedModel, prompts: torch.Tensor, new_tokens: int) -> float:
    """Wall time of so many tokens, the GPU's work included."""
    return seconds_of(partial(_answer, model, prompts, new_tokens), model.device)


@torch.no_grad()
def _answer(model: PreTrainedModel, prompts: torch.Tensor, new_tokens: int) -> None:
    """So many greedy tokens for each prompt, by the call that everybody makes; no end token stops it."""
    config = GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    with only_these_settings(model, config):
        cast("Any", model).generate(input_ids=prompts, attention_mask=torch.ones_like(prompts))
