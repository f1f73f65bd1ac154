"""Seconds of micro-batches and steps, from their FLOPs and from how fast a machine is, assumed or measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from inspo_hub.plan.hardware import FULL_SIZE, LAUNCH_S, SIZE_EXPONENT, Device

if TYPE_CHECKING:
    from inspo_hub.cost import ModelShape
    from inspo_hub.plan.facts import ModelFacts
    from inspo_hub.plan.memory import Engine


class Work(NamedTuple):
    """What a micro-batch does, in FLOPs; micro-batches that run one after the other add up."""

    tokens: float
    body: float
    attention: float
    head: float

    def plus(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> Work:
        return Work(*(value * factor for value in self))


NO_WORK = Work(0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast one device runs this model's micro-batches. Measured where `measured`, assumed elsewhere."""

    body: float
    """FLOP/s of the decoder layers: matrix products, and norms and activations between them."""
    attention: float
    head: float
    per_micro_batch_s: float
    """Seconds on top, for each micro-batch."""
    least_s: float = 0.0
    """What a micro-batch takes at least: a GPU that waits for kernel launches."""
    optimizer_bytes_per_s: float
    """Memory traffic of an optimizer step."""
    measured: bool = False

    def seconds(self, work: Work) -> float:
        """Of one micro-batch, forward and backward, or forward alone where its FLOPs are."""
        busy = work.body / self.body + work.attention / self.attention + work.head / self.head
        return max(busy, self.least_s) + self.per_micro_batch_s

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


OPTIMIZER_TRAFFIC = 40
"""Bytes that an AdamW step moves for each number: weight, gradient and two moments read, three of them written, and
the gradient read and written once more for its norm."""


def assumed_speed(device: Device, shape: ModelShape, *, units: int = 1, on_gpu: bool = True) -> Speed:
    """The speed that the dated table of `hardware` assumes. `units`: virtual CPUs, where it is one's."""
    size = min(1.0, (shape.hidden / FULL_SIZE) ** SIZE_EXPONENT) if on_gpu else 1.0
    rate = device.peak * device.share * size * units
    return Speed(
        body=rate,
        attention=rate * 0.7,
        head=rate,
        per_micro_batch_s=0.002,
        least_s=LAUNCH_S * shape.layers if on_gpu else 0.0,
        optimizer_bytes_per_s=device.bandwidth * 0.7 * units,
    )


def optimizer_seconds(speed: Speed, trained: float) -> float:
    """Of one optimizer step over `trained` numbers on one device."""
    return OPTIMIZER_TRAFFIC * trained / speed.optimizer_bytes_per_s


def exchanged_bytes(model: ModelFacts, trained: int, engine: Engine, devices: int) -> tuple[float, float]:
    """Bytes that each device sends in a micro-batch, and once a step, by the engines' own algorithms.

    A ring passes (n-1)/n of a buffer for a gather or a reduction, twice that for an all-reduce. Sharded weights are
    gathered in bfloat16 for the forward and again for the backward.
    """
    ring = (devices - 1) / devices if devices else 0.0
    if engine == "ddp":
        return 0.0, ring * 2 * 4.0 * trained
    if engine == "zero2":
        return ring * 2.0 * trained, ring * 2.0 * trained
    if engine == "zero3":
        return ring * (4.0 * model.parameters + 2.0 * trained), 0.0
    if engine == "fsdp2":
        return ring * 4.0 * model.parameters, ring * 2.0 * trained
    return 0.0, 0.0


def step_seconds(
    lockstep: Sequence[Work], speed: Speed, *, link: float, per_micro_batch: float, per_step: float
) -> float:
    """Of a step without the optimizer: micro-batches one after the other, the slowest process's at each place.

    What is exchanged runs beside the products, and shows where it takes longer than they do.
    """
    if not link:
        return sum(speed.seconds(work) for work in lockstep)
    exchange, last = per_micro_batch / link, per_step / link
    seconds = [max(speed.seconds(work), exchange) for work in lockstep]
    # A step's own exchange can hide behind the last backward only.
    return sum(seconds) + max(0.0, last - (seconds[-1] if seconds else 0.0) / 2)


@dataclass(frozen=True)
class Hours:
    """Seconds of a whole run by what they go into."""

    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values()) / 3600
