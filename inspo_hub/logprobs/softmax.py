"""The part of a head that is no matrix product: softmax of rows of logits, in place, by plain torch or one kernel.

Plain torch goes over a chunk's logits operation by operation, a Triton kernel reads them twice and writes them once.
The kernel is that of the `liger-kernel` package, where it is installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inspo_hub import kernels
from inspo_hub.kernels import Candidate, Choice

SoftmaxKernel = Literal["torch", "liger"]
_TOLERANCE = 1e-4
MEASURED_ROWS = 512
"""Rows of logits on which kernels are timed: enough to fill a GPU, and no more memory than a run has to spare."""
_LIGER_BLOCK = 2**15
"""Columns that a Liger kernel holds at a time, as the package itself sets it."""


class SoftmaxRows(Protocol):
    """What follows a head's product; both methods overwrite the float32 logits."""

    def logps(
        self, logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"], *, slopes: bool
    ) -> Float[Tensor, " tokens"]:
        """log p(target) of each row; with `slopes`, logits become the derivatives of its negative."""

    def slopes(self, logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]) -> None:
        """Turn logits into the derivatives of -log p(target): the softmax, less 1 at the target."""


class TorchSoftmax:
    """Operations of torch, on any device; float64 as well."""

    def logps(self, logits: Tensor, targets: Tensor, *, slopes: bool) -> Tensor:
        largest, picked = logits.amax(1), logits.gather(1, targets[:, None])[:, 0]
        # Half the time of `logsumexp` on a CPU.
        torch.softmax(logits, 1, out=logits)
        found = picked - (largest - logits.amax(1).log())
        if slopes:
            self._less_one_(logits, targets)
        return found

    def slopes(self, logits: Tensor, targets: Tensor) -> None:
        torch.softmax(logits, 1, out=logits)
        self._less_one_(logits, targets)

    def _less_one_(self, probabilities: Tensor, targets: Tensor) -> None:
        probabilities[torch.arange(len(targets), device=targets.device), targets] -= 1


class LigerSoftmax:
    """Liger's cross-entropy kernel, without the package's function around it, which waits for the device."""

    def logps(self, logits: Tensor, targets: Tensor, *, slopes: bool) -> Tensor:
        return -self._losses(logits, targets, slopes=slopes)

    def slopes(self, logits: Tensor, targets: Tensor) -> None:
        self._losses(logits, targets, slopes=True)

    def _losses(self, logits: Tensor, targets: Tensor, *, slopes: bool) -> Tensor:
        from liger_kernel.ops.cross_entropy import liger_cross_entropy_kernel

        tokens, vocab = logits.shape
        losses = torch.empty(tokens, dtype=logits.dtype, device=logits.device)
        unused = dict.fromkeys(("weight_ptr", "z_loss_ptr", "token_accuracy_ptr", "predicted_tokens_ptr"))
        neutral: dict[str, Any] = {
            "token_accuracy_stride": 0, "predicted_tokens_stride": 0, "n_non_ignore": 1, "sum_non_ignore_weight": 1,
            "weight_sum": 0.0, "ignore_index": -100, "lse_square_scale": 0.0, "label_smoothing": 0.0,
            "reduction": "sum", "softcap": 0.0, "RETURN_Z_LOSS": False, "RETURN_TOKEN_ACCURACY": False,
            "RETURN_PREDICTED_TOKENS": False, "HAS_WEIGHT": False, "HAS_SOFTCAPPING": False,
        }  # fmt: skip
        liger_cross_entropy_kernel[(tokens,)](
            X_ptr=logits,
            X_stride=logits.stride(0),
            Y_ptr=targets,
            Y_stride=targets.stride(0),
            loss_ptr=losses,
            loss_stride=1,
            n_cols=vocab,
            BLOCK_SIZE=min(_LIGER_BLOCK, 2 ** (vocab - 1).bit_length()),
            HAS_GRADIENTS=slopes,
            num_warps=32,
            **unused,
            **neutral,
        )
        return losses


_KERNELS: dict[SoftmaxKernel, SoftmaxRows] = {"torch": TorchSoftmax(), "liger": LigerSoftmax()}
_measured: dict[tuple[str, int], SoftmaxKernel] = {}
"""By kind of device and size of vocabulary."""


def softmax_kernels(device: torch.device) -> tuple[SoftmaxKernel, ...]:
    """Those that run on such a device; plain torch first."""
    return ("torch", "liger") if device.type == "cuda" and importlib.util.find_spec("liger_kernel") else ("torch",)


def softmax_for(logits: Float[Tensor, "tokens vocab"]) -> SoftmaxRows:
    """The kernel that was measured to be the fastest; torch's operations where none was."""
    measured = _measured.get((logits.device.type, logits.shape[1]), "torch")
    return _KERNELS[measured if logits.dtype == torch.float32 else "torch"]


def use_softmax_kernel(device: torch.device, vocab: int, kernel: SoftmaxKernel) -> None:
    """Compute rows of so many logits by this kernel from now on, in this process."""
    _measured[device.type, vocab] = kernel


def measure_softmax(
    vocab: int, *, device: torch.device, folder: Path | None = None, rows: int = MEASURED_ROWS
) -> Choice:
    """The fastest kernel for rows of logits of a vocabulary that agrees with torch's operations."""
    names = softmax_kernels(device)
    if len(names) == 1:
        return Choice(name=names[0])

    def measure() -> Choice:
        random = torch.Generator(device).manual_seed(0)  # the run's own numbers stay as they are
        logits = torch.randn(rows, vocab, device=device, generator=random)
        targets = torch.randint(vocab, (rows,), device=device, generator=random)
        candidates = [Candidate(name=name, run=partial(_run, _KERNELS[name], logits, targets)) for name in names]
        return kernels.choose(candidates, tolerance=_TOLERANCE, device=device)

    what = {"softmax": vocab, "rows": rows, "among": list(names)}
    return kernels.remembered(what, measure, device=device, folder=folder)


def _run(kernel: SoftmaxRows, logits: Tensor, targets: Tensor) -> Sequence[Tensor]:
    logits = logits.clone()
    return kernel.logps(logits, targets, slopes=True), logits
