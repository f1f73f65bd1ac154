"""QLoRA: the base's matrices in 4-bit NormalFloat, through bitsandbytes."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inspo_hub.errors import RecipeError
from inspo_hub.models import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def load_nf4(
    path: Path, *, dtype: torch.dtype, device: torch.device, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model in a folder with its matrices in NF4, double-quantised, the rest in `dtype`, which is also what it
    computes in (arXiv 2305.14314, section 3). Embeddings and output layer stay as they are.

    Raises:
        RecipeError: bitsandbytes is not installed, or has no code for the device.
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise _unusable("the package bitsandbytes, which is not installed", "pip install 'inspo-hub[qlora]'")
    if device.type == "cpu":
        log.warning("nf4 on a CPU unpacks every matrix in software: good for trying out, slow for all else")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    try:
        model = load_model(
            path,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            quantization_config=config,
            device_map={"": device},
        )
    except (ImportError, RuntimeError) as error:
        what = str(error).strip().splitlines()[0]
        raise _unusable(f"a bitsandbytes that works on this machine: {what}", "run on a GPU") from error
    _stay_differentiable(model)
    return model


def unpack_nf4(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with plain float32 matrices of the values that NF4 left."""
    unpacked: Any = model.dequantize(dtype=torch.float32)
    return unpacked.float()


def _stay_differentiable(model: PreTrainedModel) -> None:
    """On some CPUs bitsandbytes 0.50 packs a weight for good the first time that it scores without gradient, into a
    form whose product has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _unusable(need: str, fix: str) -> RecipeError:
    return RecipeError(
        f"nf4 needs {need}",
        where="adapter.quantize",
        expected="a machine with bitsandbytes and a GPU",
        fix=f"{fix}, or set adapter.quantize: null",
    )
