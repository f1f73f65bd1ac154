"""Trains one variant: model, reference scores, steps, Trainer, and the files that others read."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from transformers import PrinterCallback

from inspo_hub.dealing import step_indices, steps_within
from inspo_hub.errors import RecipeError
from inspo_hub.logprobs import PackingCheck, prepare_model
from inspo_hub.models import compile_layers, compute_dtype, embedding_rows, load_model
from inspo_hub.pairs import PairSet, check_vocabulary
from inspo_hub.training.arguments import training_arguments
from inspo_hub.training.checkpoints import latest_complete, read_manifest, write_json_atomically
from inspo_hub.training.engine import (
    calls_are_collective,
    gather_nothing,
    loading_device,
    scored_form,
    share_out,
    shares_weights,
)
from inspo_hub.training.heldout import Heldout
from inspo_hub.training.job import VariantJob
from inspo_hub.training.memory import out_of_memory
from inspo_hub.training.observing import CHEAP_SHARE, reading_share
from inspo_hub.training.outputs import (
    SUMMARY,
    OnSave,
    clear,
    finished,
    keep,
    measured,
    move_into_place,
    same_training,
)
from inspo_hub.training.packer import Packer, laid_out_scores
from inspo_hub.training.parts import TrainerParts
from inspo_hub.training.policy import Policy, load_policy
from inspo_hub.training.progress import ProgressLines
from inspo_hub.training.records import JsonLines
from inspo_hub.training.reference_pass import reference_values
from inspo_hub.training.startup import check_positions, choose_kernels, choose_packing
from inspo_hub.training.steps import StepDataset
from inspo_hub.training.stopping import StopRequest
from inspo_hub.training.trainer import PreferenceTrainer
from inspo_hub.views import SCORES, AlternativeGradient, Score

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run was stopped by a signal after a whole checkpoint; the same command goes on."""


def train_variant(job: VariantJob, on_save: OnSave = keep) -> dict[str, Any]:
    """Trains, saves and summarises one variant; does nothing where the output already holds it.

    Args:
        on_save: told of every whole checkpoint, on the first process.

    Returns:
        The summary that is also in `trained.json`: steps, tokens, seconds per step, final metrics, reference, layout.

    Raises:
        Interrupted: a signal stopped it; TrainingError: the loss is not finite or memory ran out.
    """
    state = PartialState()
    if job.resume == "none" and state.is_main_process:
        clear(job)
    state.wait_for_everyone()
    done = finished(job)
    if done is not None:
        log.info("%s: already trained, nothing to do", job.name)
        return done
    policy = load_policy(job, loading_device())
    check_vocabulary(max(job.train.max_id(), job.heldout.max_id() if job.heldout else -1), embedding_rows(policy.model))
    check_positions(job, policy.model)
    policy = replace(policy, model=share_out(policy.model, _dtype(job)))
    return _Session(job, policy, choose_packing(job, policy.model), on_save).train()


def _dtype(job: VariantJob) -> torch.dtype:
    return compute_dtype(job.recipe.model.compute_dtype, PartialState().device)


class _Session:
    """One training: what is computed once is kept as attributes, in the order in which it becomes known."""

    def __init__(self, job: VariantJob, policy: Policy, packing: PackingCheck, on_save: OnSave) -> None:
        self.job, self.policy, self.layout, self.on_save = job, policy, packing.layout, on_save
        self.model = policy.model
        self.state, self.recipe = PartialState(), job.recipe
        self.dtype = _dtype(job)
        self.metrics_log = JsonLines(job.output / "metrics.jsonl")
        self.timings_log = JsonLines(job.output / "timings.jsonl")
        self.packer = Packer(
            layout=self.layout,
            separator=job.separator,
            max_alternative_tokens=self.recipe.alternative.max_tokens,
            tokens_per_microbatch=self.recipe.train.tokens_per_microbatch,
            one_rectangle=calls_are_collective(),
        )
        prepare_model(self.model, layout=self.layout)
        if self.recipe.train.compile:
            log.info("%s: %d layers are compiled in the first steps", job.name, compile_layers(self.model))
        self.kernels = choose_kernels(job, self.model, packing, self.packer, dtype=self.dtype)

    def train(self) -> dict[str, Any]:
        train_reference, heldout_reference = reference_values(
            self.job,
            self._reference_model(),
            layout=self.layout,
            make_scorer=partial(self.packer.scorer, device=self.state.device, compute_dtype=self.dtype),
            form=" ".join(filter(None, ["" if self.job.reference_path else self.policy.form, scored_form(self.dtype)])),
        )
        gather_nothing(self.model)
        dataset = self._steps(
            self.job.train,
            self._order(),
            train_reference,
            laid_out_scores(self.recipe),
            alternative_gradient=self.recipe.alternative.gradient,
        )
        trainer = self._trainer(dataset, heldout_reference)
        checkpoint = self._resume_point(trainer)
        stop = StopRequest()
        trainer.add_callback(stop)
        with stop.listening():
            try:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            except torch.OutOfMemoryError as error:
                raise out_of_memory(self.recipe, dataset, error) from error
        if stop.stopped:
            raise Interrupted(f"{self.job.name}: stopped at step {trainer.state.global_step}")
        return self._finish(trainer, dataset)

    def _order(self) -> Sequence[np.ndarray]:
        """The rows of every step, as many steps as the recipe's epochs, steps and tokens allow."""
        train = self.recipe.train
        steps = step_indices(len(self.job.train), train.pairs_per_step, train.epochs, self.recipe.seed, train.max_steps)
        if train.max_tokens is None:
            return steps
        tokens = self.packer.tokens(self.job.train, laid_out_scores(self.recipe))
        count = steps_within(steps, tokens, train.max_tokens)
        if count == 0:
            raise RecipeError(
                f"{train.max_tokens:,} tokens hold no step: the first takes {int(tokens[steps[0]].sum()):,}",
                where="train.max_tokens",
                expected="room for one step at least",
                fix="raise it, or lower train.pairs_per_step",
            )
        return steps[:count]

    def _steps(
        self,
        pairs: PairSet,
        steps: Sequence[np.ndarray],
        reference: dict[Score, np.ndarray],
        scores: tuple[Score, ...],
        *,
        alternative_gradient: AlternativeGradient = "full",
    ) -> StepDataset:
        return self.packer.steps(
            pairs,
            steps,
            reference,
            scores,
            processes=self.state.num_processes,
            process=self.state.process_index,
            alternative_gradient=alternative_gradient,
        )

    # --- trainer --------------------------------------------------------------------------------------------------

    def _reference_model(self) -> nn.Module:
        if self.job.reference_path is None:
            return self.model
        reference = load_model(self.job.reference_path, trust_remote_code=self.recipe.model.trust_remote_code)
        # What is shared out is on its device already; otherwise `share_out` leaves it alone.
        reference = share_out(reference, self.dtype)
        reference = reference if shares_weights() else reference.to(self.state.device)
        return prepare_model(reference, layout=self.layout)

    def _trainer(self, dataset: StepDataset, heldout_reference: dict[Score, np.ndarray]) -> PreferenceTrainer:
        heldout = None
        parts = TrainerParts(
            objective=self.recipe.objective,
            conditioning=self.recipe.conditioning,
            reference_context=self.recipe.reference.context,
            steps=dataset,
            row_id=self.job.train.row_id,
            metrics_log=self.metrics_log,
            timings_log=self.timings_log,
            keep_checkpoints=self.recipe.train.keep_checkpoints,
            on_save=partial(self.on_save, self.job),
            training_key=self.job.training_key(),
            rehearse=self.state.device.type == "cuda",
            always_observed=reading_share(self.model, self.job.train, dataset.tokens) <= CHEAP_SHARE,
        )
        if self.job.heldout is not None:
            every_row = [np.arange(len(self.job.heldout))]
            heldout = Heldout(
                self._steps(self.job.heldout, every_row, heldout_reference, SCORES),
                losses=parts.losses if parts.objective.separable else None,
                objective=parts.objective,
                reference_context=parts.reference_context,
            )
        arguments = training_arguments(
            self.recipe,
            self.job.checkpoints,
            total_steps=len(dataset),
            bf16=self.dtype == torch.bfloat16,
            on_gpu=self.state.device.type == "cuda",
            has_heldout=heldout is not None,
        )
        trainer = PreferenceTrainer(
            parts, heldout=heldout, model=self.model, args=arguments, processing_class=self.job.tokenizer
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(ProgressLines(self.job.name))
        return trainer

    def _resume_point(self, trainer: PreferenceTrainer) -> Path | None:
        """The newest whole checkpoint to go on from; records after it are dropped, for they are written again."""
        checkpoint = None
        if self.state.is_main_process:
            checkpoint = latest_complete(self.job.checkpoints)
        self.state.wait_for_everyone()
        checkpoint = latest_complete(self.job.checkpoints) if not self.state.is_main_process else checkpoint
        if checkpoint is None:
            if self.state.is_main_process:
                self.metrics_log.clear()
                self.timings_log.clear()
            self.state.wait_for_everyone()
            return None
        manifest = read_manifest(checkpoint)
        assert manifest is not None, "latest_complete returns whole checkpoints"
        same_training(self.job, manifest["training"], where=str(checkpoint))
        log.info("%s: going on from %s", self.job.name, checkpoint)
        if self.state.is_main_process:
            self.metrics_log.keep_until(int(checkpoint.name.split("-")[1]))
        trainer.args.eval_on_start = False
        trainer.restore_metrics(checkpoint)
        return checkpoint

    # --- results --------------------------------------------------------------------------------------------------

    def _finish(self, trainer: PreferenceTrainer, dataset: StepDataset) -> dict[str, Any]:
        staging = self.job.output / ".saving"
        if self.state.is_main_process:
            shutil.rmtree(staging, ignore_errors=True)
        self.state.wait_for_everyone()
        trainer.save_model(str(staging))
        self.state.wait_for_everyone()
        summary = self._summary(dataset)
        if self.state.is_main_process:
            move_into_place(staging, self.job.output)
            write_json_atomically(self.job.output / SUMMARY, summary)
        self.state.wait_for_everyone()
        del trainer
        gc.collect()
        if self.state.device.type == "cuda":
            torch.cuda.empty_cache()
        return summary

    def _summary(self, dataset: StepDataset) -> dict[str, Any]:
        rows = np.concatenate(list(dataset.steps))
        tokens = int(dataset.tokens[rows].sum())
        return {
            "variant": self.job.name,
            "steps": len(dataset),
            "pairs": len(rows),
            "tokens": tokens,
            "tokens_per_step": tokens / len(dataset),
            "processes": self.state.num_processes,
            "device": self.state.device.type,
            "device_name": torch.cuda.get_device_name() if self.state.device.type == "cuda" else None,
            "compute_dtype": str(self.dtype).removeprefix("torch."),
            "layout": self.layout,
            "kernels": self.kernels,
            "reference": {"name": self.job.reference_name, "weights": self.job.reference_weights},
            **measured(self.metrics_log, self.timings_log),
            "training": self.job.training_key(),
        }
