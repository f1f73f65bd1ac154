"""The Trainer: one batch is one optimizer step; micro-batches, scaling, metrics, checkpoints that can be trusted."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from inspo_hub.errors import TrainingError
from inspo_hub.logprobs import tree_logps, tree_losses
from inspo_hub.metrics import PairMetrics
from inspo_hub.packing import PackedBatch
from inspo_hub.training.checkpoints import rotate, seal, write_json_atomically
from inspo_hub.training.coupled import CoupledPair, couple_pairs
from inspo_hub.training.finite import stop_if_weights_are_not_finite
from inspo_hub.training.heldout import Heldout
from inspo_hub.training.parts import TrainerParts
from inspo_hub.training.steps import MicroBatch, StepShare, to_device
from inspo_hub.views import Score, TreeLogps

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

METRICS_STATE = "metrics_state.json"


class PreferenceTrainer(Trainer):
    """Trains on whole optimizer steps: the same recipe gives the same losses at any token budget and process count."""

    def __init__(self, parts: TrainerParts, *, heldout: Heldout | None, **kwargs: Any) -> None:
        super().__init__(train_dataset=parts.steps, eval_dataset=heldout, **kwargs)
        self.parts, self.heldout = parts, heldout
        if self.is_fsdp_enabled:  # the model is shared out already, by `engine.share_out`: nothing is left to wrap
            self.accelerator.state.fsdp_plugin.auto_wrap_policy = None
        self.train_metrics = PairMetrics(self.args.device, rewards=parts.objective.rewards)
        self._watched: list[tuple[tuple[int, ...], Tensor]] = []
        self._interval_started = time.perf_counter()
        self._interval_tokens = 0
        self._timed_step: int | None = None
        """The step up to which time was told; None until the first step of this process, which may have resumed."""
        self._rehearsals = 2 if parts.rehearse else 0

    def get_train_dataloader(self) -> DataLoader:
        """Steps in order. Not prepared by accelerate: a step already is this process's own share."""
        return DataLoader(
            self.parts.steps,
            batch_size=1,
            shuffle=False,
            collate_fn=_only,
            num_workers=self.args.dataloader_num_workers,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], None]:
        """The next step; how its loss is scaled is known to the step itself, so nothing is counted here."""
        return list(itertools.islice(epoch_iterator, num_batches)), None

    def floating_point_ops(self, inputs: Any) -> int:
        """0: the Trainer's estimate reads padded `input_ids`; the cost model knows better."""
        return 0

    # --- one optimizer step ---------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of every micro-batch; returns the step's mean loss, scaled so that a mean over
        processes is the mean over the step's pairs."""
        model.train()
        share: StepShare = inputs
        if self._timed_step is None:
            self._timed_step = self.state.global_step
        if self._rehearsals:
            self._rehearse(model)
        world = self.accelerator.num_processes
        coupled = None if self.parts.objective.separable else couple_pairs(self.parts, model, share, self.args.device)
        total = torch.zeros((), device=self.args.device)
        for index, micro_batch in enumerate(share.micro_batches):
            exchange = index == len(share.micro_batches) - 1
            # DeepSpeed takes its optimizer step inside a backward, where accelerate says that this is the last one.
            self.accelerator.gradient_state._set_sync_gradients(exchange)
            with contextlib.nullcontext() if exchange else self.accelerator.no_sync(model):
                loss, reported = self._micro_batch_loss(model, micro_batch, share, coupled)
                # Engines average gradients over processes; the step is a mean over all pairs, so undo that mean here.
                self.accelerator.backward(loss * (world / share.pairs))
            total += reported.detach()
        self._stop_if_not_finite(always=self.args.device.type == "cpu")
        return total * (world / share.pairs)

    def _rehearse(self, model: nn.Module) -> None:
        """Forward and backward of the largest micro-batch of the run, with gradients of 0: memory runs out here.

        Before the second step once more: the optimizer's state has its place only after the first.
        """
        self._rehearsals -= 1
        micro_batch = self.parts.steps.largest_micro_batch()
        batch = micro_batch.batch.to(self.args.device)
        reference = to_device(micro_batch.reference, self.args.device)
        scores, observed = self.parts.scores, self._observed_scores(batch)
        if self.parts.objective.separable:
            pair_losses = self.parts.pair_losses(reference, batch, 0.0)
            total = tree_losses(model, batch, pair_losses, scores=scores, no_grad_scores=observed).total
        else:
            policy = tree_logps(model, batch, scores=scores, no_grad_scores=observed)
            total = torch.stack([policy.get(score).sum() for score in scores]).sum()
        with self.accelerator.no_sync(model):
            self.accelerator.backward(total * 0.0)

    def _micro_batch_loss(
        self,
        model: nn.Module,
        micro_batch: MicroBatch,
        share: StepShare,
        coupled: dict[int, CoupledPair] | None,
    ) -> tuple[Tensor, Tensor]:
        """(what backward runs on, the loss to report), both summed over the micro-batch's pairs."""
        batch = micro_batch.batch.to(self.args.device)
        observes = (self.parts.always_observed or self._is_logging_step()) and not micro_batch.filler
        observed = self._observed_scores(batch) if observes else ()
        scores, reference = self.parts.scores, to_device(micro_batch.reference, self.args.device)
        if micro_batch.filler:
            policy = tree_logps(model, batch, scores=scores)
            nothing = torch.stack([policy.get(score).sum() for score in scores]).sum() * 0.0
            return nothing, nothing
        if coupled is None:
            pair_losses = self.parts.pair_losses(reference, batch, share.progress)
            scored = tree_losses(model, batch, pair_losses, scores=scores, no_grad_scores=observed)
            policy, losses, target = scored.logps, scored.losses, scored.total
        else:
            policy = tree_logps(model, batch, scores=scores, no_grad_scores=observed)
            losses, target = _coupled_losses(coupled, policy, micro_batch.rows)
        self._watched.append((micro_batch.rows, losses.detach()))
        self.train_metrics.update(
            policy,
            reference,
            batch,
            losses=losses.detach(),
            reference_context=self.parts.reference_context,
            truncated=micro_batch.truncated.to(self.args.device),
        )
        self._interval_tokens += batch.tokens
        return target, losses.sum()

    def _is_logging_step(self) -> bool:
        step = self.state.global_step + 1
        return step % max(1, int(self.args.logging_steps)) == 0 or step == self.state.max_steps

    def _observed_scores(self, batch: PackedBatch) -> tuple[Score, ...]:
        """Scores that the layout gives away and the loss does not use: read without gradient, for the metrics."""
        return tuple(score for score in batch.scores if score not in self.parts.scores)

    def _stop_if_not_finite(self, *, always: bool) -> None:
        """Raises with the row ids where a watched loss is not finite. One host sync; on a GPU only when logging.

        Raises:
            TrainingError: a loss is NaN or infinite.
        """
        if not self._watched or not (always or self._is_logging_step()):
            return
        losses = torch.cat([values for _, values in self._watched])
        rows = [row for rows, _ in self._watched for row in rows]
        self._watched = []
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            ids = ", ".join(self.parts.row_id(rows[index]) for index in bad[:8])
            raise TrainingError(
                f"the loss is not finite for {len(bad)} of {len(rows)} pairs at step {self.state.global_step + 1}",
                where=f"rows {ids}",
                expected="finite losses",
                fix="lower train.lr or objective.beta, or look at a row: inspo-hub preview RECIPE --row ROW; "
                "the last checkpoint is whole and the same command goes on from it",
            )

    # --- logging and evaluation -----------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the interval's metrics, reduced over processes, and writes one line of metrics.jsonl."""
        step = self.state.global_step
        if "loss" in logs:
            logs.update(self.train_metrics.reduce(self.accelerator))
            self.train_metrics.reset()
            record = {"step": step, "split": "train", **logs}
            record.pop("epoch", None)
            self._record(record)
            logs.update(self._timing(step))
        super().log(logs, start_time)

    def _record(self, record: dict[str, Any]) -> None:
        if self.is_world_process_zero():
            self.parts.metrics_log.append(record)

    def _timing(self, step: int) -> dict[str, float]:
        """Seconds per step and tokens per second since the last line; wall clock, so kept out of metrics.jsonl."""
        now = time.perf_counter()
        tokens = torch.tensor(float(self._interval_tokens), device=self.args.device)
        total = float(self.accelerator.reduce(tokens, "sum"))
        steps = max(1, step - (self._timed_step or 0))
        seconds = now - self._interval_started
        self._interval_started, self._interval_tokens, self._timed_step = now, 0, step
        timing = {
            "seconds_per_step": seconds / steps,
            "tokens_per_step": total / steps,
            "tokens_per_second": total / seconds,
        }
        if self.is_world_process_zero():
            self.parts.timings_log.append({"step": step, **timing, **_peak_memory(self.args.device)})
        return timing

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out metrics of the current policy, with all four scores whatever is trained; see `Heldout`."""
        assert self.heldout is not None
        metrics = self.heldout.evaluate(self.model_wrapped, self.accelerator)
        self._record({"step": self.state.global_step, "split": "heldout", **metrics})
        prefixed = {f"eval_{name}": value for name, value in metrics.items()}
        super().log(dict(prefixed))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, prefixed)
        self._interval_started = time.perf_counter()
        return prefixed

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's checkpoint plus the open metrics interval, sealed when every process has written its part."""
        self._stop_if_not_finite(always=True)
        stop_if_weights_are_not_finite(model, self.accelerator, self.state.global_step)
        super()._save_checkpoint(model, trial)
        folder = self._checkpoints() / f"checkpoint-{self.state.global_step}"
        state = self.train_metrics.state_dict(self.accelerator)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            write_json_atomically(folder / METRICS_STATE, state)
            seal(folder, self.parts.training_key)
            self.parts.on_save(folder, self.state.global_step)
            rotate(self._checkpoints(), self.parts.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """One ordinary model, under every engine and whatever the form of the engine's own checkpoints."""
        assert isinstance(self.model, nn.Module)
        if not _internal_call:
            stop_if_weights_are_not_finite(self.model, self.accelerator, self.state.global_step)
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        state_dict = self.accelerator.get_state_dict(self.model)
        if self.is_world_process_zero():
            self._save(output_dir, state_dict=state_dict)

    def _checkpoints(self) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def restore_metrics(self, checkpoint: Path) -> None:
        """Goes on with the metrics interval that was open when the checkpoint was written."""
        state = json.loads((checkpoint / METRICS_STATE).read_text(encoding="utf-8"))
        # The saved sums are those of all processes together: one process takes them over.
        if self.is_world_process_zero():
            self.train_metrics.load_state_dict(state)


def _only(batch: list[StepShare]) -> StepShare:
    (share,) = batch
    return share


def _coupled_losses(coupled: dict[int, CoupledPair], policy: TreeLogps, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(loss of each pair, what backward runs on): a sum whose gradient is the whole step's for these pairs."""
    pairs = [coupled[row] for row in rows]
    device = policy.get(next(iter(pairs[0].slopes))).device
    target = torch.zeros((), device=device)
    for score in pairs[0].slopes:
        slopes = torch.tensor([pair.slopes[score] for pair in pairs], device=device)
        target = target + (slopes * policy.get(score)).sum()
    return torch.tensor([pair.loss for pair in pairs], device=device), target


def _peak_memory(device: torch.device) -> dict[str, int]:
    """Peak bytes of the device, or of this process where the device is the CPU."""
    if device.type == "cuda":
        return {"peak_memory_bytes": torch.cuda.max_memory_allocated(device)}
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit} if resource else {}
