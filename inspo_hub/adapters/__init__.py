"""LoRA adapters on a frozen base: new ones, existing ones, what cannot be right, and merging them into the base."""

from __future__ import annotations

from inspo_hub.adapters.attach import (
    adapter_off,
    add_adapter,
    existing_adapter,
    is_adapter_folder,
    name_base,
    new_adapter,
)
from inspo_hub.adapters.checks import read_config
from inspo_hub.adapters.merge import merge_adapter
from inspo_hub.adapters.quantise import load_nf4, unpack_nf4

__all__ = [
    "adapter_off",
    "add_adapter",
    "existing_adapter",
    "is_adapter_folder",
    "load_nf4",
    "merge_adapter",
    "name_base",
    "new_adapter",
    "read_config",
    "unpack_nf4",
]
