"""inspo_hub: one recipe in, trained DPO and InSPO twins out. Importing the package imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the room that defines it, imported at first use.
_PUBLIC = {
    "CONDITIONINGS": "inspo_hub.conditioning",
    "OBJECTIVES": "inspo_hub.objectives",
    "PreferencePair": "inspo_hub.pairs",
    "load_recipe": "inspo_hub.recipe",
    "pack_pairs": "inspo_hub.packing",
    "run": "inspo_hub.workflow",
    "tree_logps": "inspo_hub.logprobs",
}
__all__ = ["CONDITIONINGS", "OBJECTIVES", "PreferencePair", "load_recipe", "pack_pairs", "run", "tree_logps"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'inspo_hub' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
