"""Weights that a gradient spoiled are never saved."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from inspo_hub.errors import TrainingError


def stop_if_weights_are_not_finite(model: nn.Module, accelerator: Accelerator, step: int) -> None:
    """A finite loss can have a gradient that is not; a checkpoint of such weights would fail every restart.

    Raises:
        TrainingError: a trained weight is NaN or infinite, in any process; all of them raise.
    """
    trained = [each for each in model.parameters() if each.requires_grad]
    local = [each.to_local() if hasattr(each, "to_local") else each for each in trained]  # FSDP2 shares them out
    broken = sum((~torch.isfinite(each.detach()).all()).float() for each in local)
    if float(accelerator.reduce(torch.as_tensor(broken, device=accelerator.device), "sum")):
        raise TrainingError(
            f"weights are not finite after step {step}, though every loss was",
            where=f"step {step}",
            expected="finite gradients",
            fix="lower train.lr or objective.beta, or set train.max_grad_norm; "
            "the last checkpoint is whole and the same command goes on from it",
        )
