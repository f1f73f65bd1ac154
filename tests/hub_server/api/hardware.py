"""The machines that one may ask for, with prices that are right in kind: tests compare, nobody pays."""

from __future__ import annotations

from typing import Any


def _machine(
    name: str, cpu: int, ram: int, usd_per_hour: float, gpu: tuple[str, int, int] | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "prettyName": name.replace("-", " ").title(),
        "cpu": f"{cpu} vCPU",
        "ram": f"{ram} GB",
        "ephemeralStorage": "100 GB",
        "accelerator": None,
        "unitCostMicroUSD": round(usd_per_hour / 60 * 1e6),
        "unitCostUSD": round(usd_per_hour / 60, 6),
        "unitLabel": "minute",
    }
    if gpu is not None:
        model, quantity, vram = gpu
        row["accelerator"] = {
            "type": "gpu",
            "model": model,
            "quantity": str(quantity),
            "vram": f"{vram * quantity} GB",
            "manufacturer": "Nvidia",
        }
    return row


HARDWARE = [
    _machine("cpu-basic", 2, 16, 0.01),
    _machine("cpu-upgrade", 8, 32, 0.03),
    _machine("t4-small", 4, 15, 0.40, ("T4", 1, 16)),
    _machine("l4x1", 8, 30, 0.80, ("L4", 1, 24)),
    _machine("l4x4", 48, 186, 3.80, ("L4", 4, 24)),
    _machine("a10g-small", 4, 15, 1.00, ("A10G", 1, 24)),
    _machine("a10g-large", 12, 46, 1.50, ("A10G", 1, 24)),
    _machine("l40sx1", 8, 62, 1.80, ("L40S", 1, 48)),
    _machine("l40sx8", 192, 1534, 23.50, ("L40S", 8, 48)),
    _machine("a100-large", 12, 142, 2.50, ("A100", 1, 80)),
    _machine("a100x8", 96, 1136, 20.00, ("A100", 8, 80)),
    _machine("h200", 23, 256, 5.00, ("H200", 1, 141)),
    _machine("h200x8", 184, 2048, 40.00, ("H200", 8, 141)),
]
