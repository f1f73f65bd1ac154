"""The machine and the versions that a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

_LIBRARIES = ("torch", "transformers", "accelerate", "trl")
PEAK_BF16_FLOPS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 peaks from the makers' data sheets, by a part of the device's name; the first that fits counts."""


def describe() -> dict[str, Any]:
    """What a reader needs to judge a figure; no name of a host or a user."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in psutil.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
        "commit": _commit(),
    }


def peak_flops() -> float | None:
    """bf16 FLOP/s that this GPU could do at most; None for a CPU or a GPU that is not in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK_BF16_FLOPS.items() if part in name), None)


def _cpu_name() -> str:
    """The processor's model; family and model number too, for virtual machines hide the name."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in path.read_text().splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    extensions = [name for name in ("avx2", "avx512f", "amx_bf16") if name in values.get("flags", "").split()]
    family = f"family {values.get('cpu family', '?')} model {values.get('model', '?')}"
    return f"{values.get('model name', platform.machine())} ({family}{''.join(', ' + name for name in extensions)})"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit; None outside of a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
