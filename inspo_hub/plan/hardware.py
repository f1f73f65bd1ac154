"""Machines that a run can have: what they cost an hour, what they hold, and how fast they are assumed to be.

Two dated tables. Prices are those of the Hub's Jobs; the client's own list replaces them where it can be reached.
Speeds are ASSUMPTIONS, not measurements of this package: peaks and bandwidths from the makers' data sheets, and the
share of the peak that a training step of a large model usually reaches. `inspo-hub plan --calibrate` measures instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspo_hub.hub import Hardware

PRICES_OF = "2026-11-23"
PRICES_SOURCE = "https://huggingface.co/docs/hub/jobs-pricing"
SPEEDS_OF = "2026-11-23"


@dataclass(frozen=True, kw_only=True)
class Device:
    """One kind of processor. All figures per device; `share` is an assumption."""

    peak: float
    """FLOP/s of dense matrix products in the number format that a run uses there: bfloat16, or float32."""
    share: float
    """Part of the peak that a step reaches at a hidden size of `FULL_SIZE` and more (model-FLOP utilisation)."""
    bandwidth: float
    """Bytes per second of its memory."""
    link: float = 0.0
    """Bytes per second that one device exchanges with the others in a collective."""


FULL_SIZE = 4096
"""Smaller hidden sizes reach less of the peak: `share * (hidden / FULL_SIZE) ** SIZE_EXPONENT`."""
SIZE_EXPONENT = 0.25
LAUNCH_S = 1.0e-3
"""Least seconds that a decoder layer's forward and backward take on a GPU, however few its tokens: kernel launches."""

# fmt: off
DEVICES: Mapping[str, Device] = MappingProxyType({
    # No bfloat16 units: torch emulates it there at the speed of float32 at best.
    "T4": Device(peak=8.1e12, share=0.50, bandwidth=320e9, link=6e9),
    "L4": Device(peak=121e12, share=0.35, bandwidth=300e9, link=10e9),
    "A10G": Device(peak=70e12, share=0.50, bandwidth=600e9, link=10e9),
    "L40S": Device(peak=362e12, share=0.38, bandwidth=864e9, link=12e9),
    "RTX PRO 6000": Device(peak=500e12, share=0.38, bandwidth=1597e9, link=25e9),
    "A100": Device(peak=312e12, share=0.48, bandwidth=2039e9, link=200e9),
    "H100": Device(peak=989e12, share=0.40, bandwidth=3350e9, link=300e9),
    "H200": Device(peak=989e12, share=0.42, bandwidth=4800e9, link=300e9),
})
VCPU = Device(peak=32e9, share=0.50, bandwidth=5e9)
"""One virtual CPU, half a core, float32."""


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One machine that can be had by the minute."""

    name: str
    usd_per_hour: float
    vcpus: int
    ram_gb: float
    disk_gb: float
    gpus: int = 0
    gpu: str = ""
    """Kind of its GPUs: a key of `DEVICES`, or a name that has no speed there."""
    gpu_gb: float = 0.0
    """Memory of one GPU."""

    @property
    def device(self) -> Device | None:
        """Its processor's assumed speed; None where no assumption was written down."""
        return DEVICES.get(self.gpu) if self.gpus else VCPU


def _cpu(name: str, usd: float, vcpus: int, ram: int, disk: int) -> Flavour:
    return Flavour(name=name, usd_per_hour=usd, vcpus=vcpus, ram_gb=ram, disk_gb=disk)


def _gpu(name: str, usd: float, gpus: int, gpu: str, gpu_gb: int, vcpus: int, ram: int, disk: int) -> Flavour:
    return Flavour(
        name=name, usd_per_hour=usd, gpus=gpus, gpu=gpu, gpu_gb=gpu_gb, vcpus=vcpus, ram_gb=ram, disk_gb=disk
    )


FLAVOURS: tuple[Flavour, ...] = (
    _cpu("cpu-basic", 0.01, 2, 16, 50),
    _cpu("cpu-upgrade", 0.03, 8, 32, 50),
    _cpu("cpu-xl", 1.00, 16, 124, 1000),
    _cpu("cpu-performance", 1.90, 32, 256, 1024),
    _gpu("t4-small", 0.40, 1, "T4", 16, 4, 15, 50),
    _gpu("t4-medium", 0.60, 1, "T4", 16, 8, 30, 100),
    _gpu("l4x1", 0.80, 1, "L4", 24, 8, 30, 400),
    _gpu("l4x4", 3.80, 4, "L4", 24, 48, 186, 3200),
    _gpu("l40sx1", 1.80, 1, "L40S", 48, 8, 62, 380),
    _gpu("l40sx4", 8.30, 4, "L40S", 48, 48, 382, 3200),
    _gpu("l40sx8", 23.50, 8, "L40S", 48, 192, 1534, 6500),
    _gpu("a10g-small", 1.00, 1, "A10G", 24, 4, 15, 110),
    _gpu("a10g-large", 1.50, 1, "A10G", 24, 12, 46, 200),
    _gpu("a10g-largex2", 3.00, 2, "A10G", 24, 24, 92, 1000),
    _gpu("a10g-largex4", 5.00, 4, "A10G", 24, 48, 184, 2000),
    _gpu("a100-large", 2.50, 1, "A100", 80, 12, 142, 1000),
    _gpu("a100x4", 10.00, 4, "A100", 80, 48, 568, 4000),
    _gpu("a100x8", 20.00, 8, "A100", 80, 96, 1136, 8000),
    _gpu("h200", 5.00, 1, "H200", 141, 23, 256, 3000),
    _gpu("h200x2", 10.00, 2, "H200", 141, 46, 512, 6000),
    _gpu("h200x4", 20.00, 4, "H200", 141, 92, 1024, 12000),
    _gpu("h200x8", 40.00, 8, "H200", 141, 184, 2048, 24000),
    _gpu("rtx-pro-6000", 2.75, 1, "RTX PRO 6000", 96, 23, 256, 475),
    _gpu("rtx-pro-6000x2", 5.50, 2, "RTX PRO 6000", 96, 46, 512, 950),
    _gpu("rtx-pro-6000x4", 11.00, 4, "RTX PRO 6000", 96, 92, 1024, 1900),
    _gpu("rtx-pro-6000x8", 22.00, 8, "RTX PRO 6000", 96, 184, 2048, 3800),
)
# fmt: on


@dataclass(frozen=True)
class PriceList:
    """Flavours with their prices, and where these come from, in words."""

    flavours: Sequence[Flavour]
    source: str

    def named(self, name: str) -> Flavour | None:
        return next((flavour for flavour in self.flavours if flavour.name == name), None)


def price_list(listed: Sequence[Hardware] | None) -> PriceList:
    """The Hub's own list where it was reached, else the table of this module with its date."""
    if listed is None:
        return PriceList(FLAVOURS, f"the table of {PRICES_OF} from {PRICES_SOURCE} (the Hub's list was not reached)")
    known = tuple(flavour for flavour in (_of_hub(one) for one in listed) if flavour is not None)
    return PriceList(known, "the Hub's own list, asked for now")


def _of_hub(listed: Hardware) -> Flavour | None:
    """A row of the Hub's list; None for accelerators that are no GPUs, and for prices by another unit of time."""
    per_hour = {"second": 3600, "minute": 60, "hour": 1}.get(listed.unit)
    if per_hour is None or listed.accelerator_type not in ("", "gpu"):
        return None
    count = listed.accelerators
    return Flavour(
        name=listed.name,
        usd_per_hour=listed.usd_per_unit * per_hour,
        vcpus=int(_number(listed.cpu)),
        ram_gb=_number(listed.ram),
        disk_gb=_number(listed.disk),
        gpus=count,
        gpu=_kind_of(listed.accelerator, DEVICES) if count else "",
        gpu_gb=_number(listed.vram) / count if count else 0.0,
    )


def _kind_of(model: str, known: Iterable[str]) -> str:
    """The device that a model's name speaks of, the longest name first: an L40S is no L4."""
    plain = re.sub(r"[^A-Z0-9]", "", model.upper())
    return next(
        (kind for kind in sorted(known, key=len, reverse=True) if kind.replace(" ", "") in plain), model or "unknown"
    )


def _number(text: str) -> float:
    """`16 GB`, `1 TB`, `2 vCPU` -> 16, 1000, 2; 0 where there is no number."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*(TB)?", text, re.IGNORECASE)
    return float(found[1]) * (1000 if found[2] else 1) if found else 0.0
