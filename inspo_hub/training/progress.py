"""What people see while it trains: a bar on a terminal, and one plain line per logged step everywhere."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

# What a line shows, in this order, of the metrics that were logged, with short names.
_SHOWN = {
    "loss": "loss",
    "plain_margin": "margin",
    "plain_accuracy": "accuracy",
    "conditioned_margin": "conditioned margin",
    "distillation_gap": "gap",
    "tokens_per_second": "tokens/s",
}


def duration(seconds: float) -> str:
    """`h:mm:ss`, with days where there are any."""
    return str(timedelta(seconds=round(seconds)))


class ProgressLines(TrainerCallback):
    """Takes the place of the Trainer's own printing, which dumps whole dictionaries."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started, self._first_step = time.monotonic(), 0
        self._bar: tqdm | None = None
        self._redirect: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.name, unit="step")
            self._redirect = logging_redirect_tqdm()
            self._redirect.__enter__()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        # The last interval is logged too, whether or not it is a whole one.
        control.should_log = control.should_log or state.global_step == state.max_steps
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        held_out = any(name.startswith("eval_") for name in logs)
        values = {name.removeprefix("eval_"): value for name, value in logs.items()}
        shown = [f"{label} {values[name]:.4g}" for name, label in _SHOWN.items() if name in values]
        if not held_out and self._first_step < state.global_step < state.max_steps:
            per_step = (time.monotonic() - self._started) / (state.global_step - self._first_step)
            shown.append(f"left {duration(per_step * (state.max_steps - state.global_step))}")
        if "loss" in values and shown:
            split = "  held-out" if held_out else ""
            log.info("%s  step %d/%d%s  %s", self.name, state.global_step, state.max_steps, split, "  ".join(shown))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._redirect.__exit__(None, None, None)
            self._bar.close()
            self._bar = None
