"""Which backends can compute a call of tree attention, and which one does: the measured one, or one by rule."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from inspo_hub.attention.blockwise import Scoring
from inspo_hub.attention.varlen import FlashAttnPackage, Kernel, TorchFlash

Backend = Literal["blocks", "torch_flash", "flash_attn", "flex"]
"""`blocks` of torch's CPU kernel or of plain torch, computes everything everywhere; the others on a GPU in half
precision: torch's own variable-length flash kernel, that of the `flash_attn` package, and torch's flex_attention."""
_KERNELS: dict[Backend, Kernel] = {"torch_flash": TorchFlash(), "flash_attn": FlashAttnPackage()}
_LARGEST_HEAD = 256


class AttentionShape(NamedTuple):
    """All that a backend's speed depends on beside the row: one per kind of layer."""

    device: str
    """Kind of device, as torch names it."""
    dtype: torch.dtype
    heads: int
    kv_heads: int
    size: int
    value_size: int
    scoring: Scoring

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> AttentionShape:
        """The shape of a call with `(1, heads, tokens, size)` tensors."""
        heads, kv_heads = query.shape[1], key.shape[1]
        sizes = query.shape[-1], value.shape[-1]
        return cls(query.device.type, query.dtype, heads, kv_heads, *sizes, scoring)

    def to_json(self) -> dict[str, Any]:
        values = {**self._asdict(), **self.scoring._asdict(), "dtype": str(self.dtype).removeprefix("torch.")}
        del values["scoring"]
        return values


_measured: dict[AttentionShape, Backend] = {}


def backends_for(shape: AttentionShape) -> tuple[Backend, ...]:
    """Those that can compute it; `blocks` is always the first."""
    if shape.device != "cuda" or shape.dtype not in (torch.bfloat16, torch.float16):
        return ("blocks",)
    backends: list[Backend] = ["blocks"]
    if max(shape.size, shape.value_size) <= _LARGEST_HEAD:
        if not shape.scoring.softcap:
            backends.append("torch_flash")
        if _has_flash_attn():
            backends.append("flash_attn")
    return (*backends, "flex")


def backend_for(shape: AttentionShape) -> Backend:
    """The one that was measured to be the fastest; where none was, a flash kernel before flex before blocks."""
    if shape in _measured:
        return _measured[shape]
    _blocks, *others = backends_for(shape)
    return others[0] if others else "blocks"


def kernel_for(shape: AttentionShape) -> Kernel | None:
    """The variable-length kernel that computes it; None where another kind of backend does."""
    return _KERNELS.get(backend_for(shape))


def use_backend(shape: AttentionShape, backend: Backend) -> None:
    """Compute calls of this shape by this backend from now on, in this process."""
    assert backend in backends_for(shape), f"{backend} cannot compute {shape}"
    _measured[shape] = backend


@cache
def _has_flash_attn() -> bool:
    """Looked up once: unmeasured shapes ask in every layer."""
    return importlib.util.find_spec("flash_attn") is not None


@contextlib.contextmanager
def using_backend(shape: AttentionShape, backend: Backend) -> Iterator[None]:
    """`use_backend` for a while."""
    before = _measured.get(shape)
    use_backend(shape, backend)
    try:
        yield
    finally:
        if before is None:
            del _measured[shape]
        else:
            _measured[shape] = before
