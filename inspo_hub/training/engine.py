"""What the launcher's engine does to a model: DDP and one device keep it whole, FSDP2 shares its weights out.

Sharing out happens at once, and not when the Trainer comes to it: so the start-up check and the reference pass run on
the shared-out weights too, and no device ever holds a whole copy.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from torch import nn

from inspo_hub.errors import TrainingError
from inspo_hub.logprobs import prepare_model

Model = TypeVar("Model", bound=nn.Module)


def join_launch(*, timeout: timedelta | None = None) -> PartialState:
    """This process among those of its launch, whatever started them: accelerate, torchrun, or nobody.

    Where there is no accelerator, accelerate has to be told so: otherwise it takes every process for the only one, and
    all of them would train the whole recipe into the same folder.

    Args:
        timeout: how long processes wait for each other.
    """
    processors = not torch.accelerator.is_available() or os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    return PartialState(cpu=processors, **({} if timeout is None else {"timeout": timeout}))


def shares_weights() -> bool:
    """Whether the launch asks for FSDP2.

    Raises:
        TrainingError: for FSDP's first version, which flattens parameters that packed scoring reads by themselves.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise TrainingError(
            f"FSDP version {version} is asked for",
            where="the configuration of `accelerate launch`",
            expected="fsdp_version: 2",
            fix="launch with the shipped recipes/accelerate/fsdp2.yaml",
        )
    return True


def calls_are_collective() -> bool:
    """Whether every process must call the model equally often, because each call gathers weights from all of them."""
    return shares_weights() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def loading_device() -> torch.device:
    """Where weights are read to: the process's own device, or main memory where they are shared out from there."""
    return torch.device("cpu") if shares_weights() else PartialState().device


def share_out(model: Model, compute_dtype: torch.dtype) -> Model:
    """The model as the engine holds it, ready for packed batches; itself where every process has a whole copy.

    Args:
        compute_dtype: bfloat16 makes FSDP2 gather and compute in it, around float32 weights.
    """
    if not shares_weights():
        return model
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    prepare_model(model, layout="flat")  # looks at the head's weights, which are whole now
    accelerator = Accelerator(mixed_precision="bf16" if compute_dtype == torch.bfloat16 else "no")
    shared: Model = fsdp2_prepare_model(accelerator, model)
    return shared


def gather_nothing(model: nn.Module) -> None:
    """Shares out again what FSDP2 left whole after a forward that no backward followed.

    It keeps the last layers' weights for the backward that it expects; an optimizer or a state dict that is made
    meanwhile would find whole tensors there.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def scored_form(compute_dtype: torch.dtype) -> str:
    """How scores of shared-out weights differ from those of a whole copy: FSDP2 keeps activations in bfloat16 too."""
    return "fsdp2 bfloat16" if shares_weights() and compute_dtype == torch.bfloat16 else ""
