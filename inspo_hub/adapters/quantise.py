"""QLoRA: the base's matrices in 4-bit NormalFloat, through bitsandbytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from inspo_hub.errors import RecipeError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def nf4(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computing in `compute_dtype` (arXiv 2305.14314, section 3).

    Raises:
        RecipeError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise RecipeError(
            "nf4 needs the package bitsandbytes, which is not installed",
            where="adapter.quantize",
            expected="a machine with bitsandbytes (a GPU; its CPU code is for trying out)",
            fix="pip install 'inspo-hub[qlora]', or set adapter.quantize: null",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
