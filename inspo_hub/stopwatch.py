"""Seconds of an action, the GPU's work included."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(
    action: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one call, by a clock of the host's."""
    synchronize(device)
    start = clock()
    action()
    synchronize(device)
    return clock() - start
