"""What one process of a launch does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

Result = TypeVar("Result")


def on_first_process(action: Callable[[], Result]) -> Result:
    """The action's result on every process, or its error; only the first process carries it out."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome = [action(), None]
        except Exception as error:  # noqa: BLE001 - raised again below, on every process
            outcome = [None, error]
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
