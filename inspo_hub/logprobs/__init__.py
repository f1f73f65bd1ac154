"""Log-probabilities of packed pairs, and the start-up check that decides how a model is packed."""

from __future__ import annotations

from inspo_hub.logprobs.check import TOLERANCE, PackingCheck, check_packing
from inspo_hub.logprobs.choosing import ModelKernels, has_choice, layers_by_shape, measure_kernels
from inspo_hub.logprobs.model import (
    TreeLosses,
    prepare_model,
    prepared_state,
    restore_model,
    tree_logps,
    tree_losses,
)

__all__ = [
    "TOLERANCE",
    "ModelKernels",
    "PackingCheck",
    "TreeLosses",
    "check_packing",
    "has_choice",
    "layers_by_shape",
    "measure_kernels",
    "prepare_model",
    "prepared_state",
    "restore_model",
    "tree_logps",
    "tree_losses",
]
