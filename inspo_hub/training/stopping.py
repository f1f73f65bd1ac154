"""Stops a run between two steps: SIGTERM and Ctrl-C write a checkpoint and end with exit code 130, resumable."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While the block runs, SIGTERM ends it as Ctrl-C does: what is open is closed, and the exit code is 130."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling({signal.SIGTERM: interrupt}):
        yield


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Takes these signals while the block runs; in a thread, where Python takes none, it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest(TrainerCallback):
    """Remembers a signal and stops after the running step. A second Ctrl-C interrupts at once, as ever."""

    def __init__(self) -> None:
        self.requested = False
        self.stopped = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        log.warning("%s: a checkpoint is written after this step, then the run stops", signal.Signals(signum).name)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Takes SIGTERM and SIGINT while the block runs."""
        with _handling({signal.SIGTERM: self, signal.SIGINT: self}):
            yield self

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._agreed(args, state) and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True
        return control

    def _agreed(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether any process was asked to stop. Processes stop at the same step, so they ask each other: after every
        step on a CPU; on GPUs only in logged steps, where the host waits for the device anyway."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return self.requested
        if args.device.type != "cpu" and state.global_step % max(1, int(args.logging_steps)):
            return False
        asked = torch.tensor(int(self.requested), device=args.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())
