"""The models of an evaluation, one in memory at a time: whole models in turn, and adapters in turn on one base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inspo_hub.adapters import existing_adapter, load_nf4
from inspo_hub.models import compute_dtype, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Where a system's weights are: a whole model, or an adapter and the base it was trained on."""

    model: Path
    adapter: Path | None = None
    quantized: bool = False
    """Whether the model's matrices are held in nf4, as QLoRA trained the adapter on them."""


class Systems:
    """Opens systems one after the other; a base stays loaded while the next system is an adapter on it, or it."""

    def __init__(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        self.device = torch.device(device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype if dtype is not None else compute_dtype("auto", self.device)
        self._loaded: tuple[Path, bool] | None = None
        self._model: PreTrainedModel | None = None

    @contextmanager
    def open(self, system: System) -> Iterator[PreTrainedModel]:
        """The system's model in evaluation mode, for the length of the block."""
        model = self._base(system)
        if system.adapter is None:
            yield model
            return
        wrapped: Any = existing_adapter(model, system.adapter, trainable=False).to(self.device).eval()
        try:
            yield wrapped.get_base_model()
        finally:
            self._model = wrapped.unload()

    def _base(self, system: System) -> PreTrainedModel:
        wanted = (system.model, system.quantized)
        if self._model is None or self._loaded != wanted:
            self._model = None  # before the next one is loaded
            model: Any
            if system.quantized:
                model = load_nf4(system.model, dtype=self.dtype, device=self.device)
            else:
                model = load_model(system.model, dtype=self.dtype)
            self._model = model.to(self.device).eval()
            self._loaded = wanted
        assert self._model is not None
        return self._model
