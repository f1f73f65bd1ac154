"""TRL's DPOTrainer: its own collator, forward, loss, metrics and backward, on the same token ids."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import tempfile
import time
import weakref
from typing import Any

import torch
from torch import Tensor

from inspo_hub.stopwatch import synchronize
from tests.bench.sides.side import SideName, SideUnavailable, batches
from tests.bench.workload import Workload

VERSION = "1.16"
BEST_OF = (1, 2, 4, 8, 16)


class PeerStep:
    """DPOTrainer.training_step on consecutive batches, accumulating gradients."""

    note = ""
    computes = "dpo"

    def __init__(self, workload: Workload, *, batch: int, precomputed: bool, checkpointing: bool) -> None:
        self.workload = workload
        self.batches = list(batches(len(workload.pairs), batch))
        self.holds_reference = not precomputed
        self.model = workload.fresh_policy(checkpointing=checkpointing)
        self.trainer = _trainer(workload, self.model, batch=batch, precomputed=precomputed, checkpointing=checkpointing)
        self.rows = list(self.trainer.train_dataset)
        # What the training loop sets before each step: the loss of a batch is divided by it.
        self.trainer.current_gradient_accumulation_steps = len(self.batches)

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.batches:
            inputs = self.trainer.data_collator([self.rows[member] for member in members])
            total += self.trainer.training_step(self.model, inputs)
        return total


class PeerReferencePass:
    """What TRL does per batch when it precomputes the reference's log-probabilities."""

    note = ""
    computes = "reference"
    holds_reference = False

    def __init__(self, workload: Workload, name: SideName) -> None:
        self.workload = workload
        batch = name.batch or workload.case.batch
        self.batches = list(batches(len(workload.pairs), batch))
        self.trainer = _trainer(workload, workload.fresh_policy(), batch=batch, precomputed=False, checkpointing=False)
        self.rows = list(self.trainer.train_dataset)

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.batches:
            inputs = self.trainer.data_collator([self.rows[member] for member in members])
            inputs = {name: tensor.to(self.workload.device) for name, tensor in inputs.items()}
            chosen, rejected = self.trainer.compute_ref_log_probs(self.trainer.ref_model, inputs)
            total += (chosen - rejected).sum()
        return total / len(self.workload.pairs)


def peer_step(workload: Workload, name: SideName) -> PeerStep:
    return PeerStep(
        workload,
        batch=name.batch or workload.case.batch,
        precomputed=name.name == "trl_precomputed",
        checkpointing=name.checkpointing,
    )


def best_peer_step(workload: Workload, name: SideName) -> PeerStep:
    """Precomputed reference at the per-device batch size that takes least time here, by one timed step each."""
    seconds: dict[int, float] = {}
    steps: dict[int, PeerStep] = {}
    for batch in (size for size in BEST_OF if size <= len(workload.pairs)):
        steps[batch] = PeerStep(workload, batch=batch, precomputed=True, checkpointing=name.checkpointing)
        steps[batch].step()
        synchronize(workload.device)
        start = time.process_time() if workload.device.type == "cpu" else time.perf_counter()
        steps[batch].step()
        synchronize(workload.device)
        seconds[batch] = (time.process_time() if workload.device.type == "cpu" else time.perf_counter()) - start
        workload.clear_gradients()
    best = min(seconds, key=seconds.__getitem__)
    steps[best].note = f"precomputed reference, per-device batch {best}"
    return steps[best]


def _trainer(workload: Workload, model: Any, *, batch: int, precomputed: bool, checkpointing: bool) -> Any:
    """A DPOTrainer over the pairs' own token ids: its text processing is not what is measured here."""
    if importlib.util.find_spec("trl") is None:
        raise SideUnavailable("trl is not installed: pip install 'inspo-hub[bench]'")
    if not importlib.metadata.version("trl").startswith(VERSION):
        raise SideUnavailable(f"trl {importlib.metadata.version('trl')} is installed, the benchmark reads {VERSION}")
    import trl
    from datasets import Dataset

    class TokenisedDPOTrainer(trl.DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset

    folder = tempfile.mkdtemp(prefix="bench-trl-")
    trainer = TokenisedDPOTrainer(
        model=model,
        ref_model=workload.fresh_reference(),
        args=trl.DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=-(-len(workload.pairs) // batch),
            gradient_checkpointing=checkpointing,
            precompute_ref_log_probs=precomputed,
            max_length=None,
            # The weights have the case's dtype already; on a CPU TRL refuses bf16 anyway.
            bf16=False,
            use_cpu=workload.device.type == "cpu",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [
                {"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)}
                for pair in workload.pairs
            ]
        ),
        processing_class=_tokenizer(),
    )
    weakref.finalize(trainer, shutil.rmtree, folder, ignore_errors=True)
    return trainer


def _tokenizer() -> Any:
    """A tokenizer that only knows which id pads."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<pad>")
