"""Puts an adapter on a model: a new one, which adds nothing until it is trained, or one that exists."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn

from inspo_hub.adapters.checks import check_config, check_fit, check_targets, check_tied, read_config
from inspo_hub.errors import RecipeError, ResolutionError
from inspo_hub.models import disable_dropout

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_EXPECTED_WARNINGS = (
    "Model has `tie_word_embeddings=True`",
    "fan_in_fan_out is set to",
    "Found missing adapter keys",
    "`is_gradient_checkpointing` is deprecated",
)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class AdapterLike(Protocol):
    """What this room reads of a recipe's `adapter:` section."""

    @property
    def rank(self) -> int: ...
    @property
    def scale_numerator(self) -> float: ...
    @property
    def targets(self) -> tuple[str, ...] | None: ...
    @property
    def use_dora(self) -> bool | None: ...
    @property
    def use_rslora(self) -> bool | None: ...


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def new_adapter(model: PreTrainedModel, section: AdapterLike, *, seed: int) -> PeftModel:
    """The model, frozen, with a LoRA adapter that adds 0: `W x + s·B A x` with B = 0 (arXiv 2106.09685, section 4.1).

    The adapter's first weights depend on the seed alone, so that every process starts with the same.

    Raises:
        RecipeError: `adapter.target_modules` names no layer, or one whose weight belongs to another layer too.
    """
    peft = _peft()
    targets = section.targets
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=_integer_if_whole(section.scale_numerator),
        target_modules="all-linear" if targets is None else list(targets),
        use_dora=bool(section.use_dora),
        use_rslora=bool(section.use_rslora),
    )
    if targets is not None:
        check_targets(model, targets)
    try:
        with torch.random.fork_rng(), _quiet():
            torch.manual_seed(seed)
            wrapped: PeftModel = peft.get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(
            f"no adapter can be put there: {str(error).strip().splitlines()[0]}",
            where="adapter.target_modules",
            expected="linear layers or embeddings",
            fix="set adapter.target_modules: auto",
        ) from error
    wrapped.active_peft_config.target_modules = _short_names(model, cast(Any, wrapped.base_model).targeted_module_names)
    return _ready(wrapped, where="adapter.target_modules")


def existing_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool, name: str = "default") -> PeftModel:
    """The model with the adapter in a folder; frozen altogether unless `trainable`.

    Args:
        name: the adapter's, for a model that `add_adapter` gives more of them.

    Raises:
        ResolutionError: the adapter is not of this model, or of a kind that cannot be trained or scored here.
    """
    peft = _peft()
    check_config(read_config(folder), where=str(folder))
    try:
        with _quiet():
            wrapped: PeftModel = peft.PeftModel.from_pretrained(
                model, str(folder), adapter_name=name, is_trainable=trainable
            )
    except (RuntimeError, ValueError) as error:
        raise _misfit(error, folder) from error
    check_fit(wrapped, folder / ADAPTER_WEIGHTS, name)
    return _ready(wrapped, where=str(folder))


def add_adapter(wrapped: PeftModel, folder: Path, *, name: str) -> None:
    """Puts one more frozen adapter beside those of a model; `wrapped.set_adapter(name)` switches between them.

    Raises:
        ResolutionError: as `existing_adapter`.
    """
    check_config(read_config(folder), where=str(folder))
    try:
        with _quiet():
            wrapped.load_adapter(str(folder), adapter_name=name)
    except (RuntimeError, ValueError) as error:
        raise _misfit(error, folder) from error
    check_fit(wrapped, folder / ADAPTER_WEIGHTS, name)
    _ready(wrapped, where=str(folder))


def _misfit(error: Exception, folder: Path) -> ResolutionError:
    """Wrong shapes, or layers that the model does not have."""
    return ResolutionError(
        f"the adapter does not fit the model: {str(error).strip().splitlines()[0]}",
        where=str(folder),
        expected="an adapter that was trained on this base model",
        fix="check model.id and the adapter's base_model_name_or_path",
    )


def _ready(wrapped: PeftModel, *, where: str) -> PeftModel:
    check_tied(wrapped, where=where)
    disable_dropout(wrapped)
    # Otherwise every save asks the Hub whether the base's vocabulary has changed; it never does here.
    wrapped.save_pretrained = partial(wrapped.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return wrapped


@contextlib.contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The base alone while the block runs; a model without adapter stays as it is."""
    if not hasattr(model, "disable_adapter"):
        yield
        return
    with cast(Any, model).disable_adapter():
        yield


def name_base(model: PeftModel, name: str, revision: str | None) -> None:
    """Writes into the adapter's configuration where its base is found by others: a Hub id and commit, or a path."""
    config = model.active_peft_config
    config.base_model_name_or_path, config.revision = name, revision


def _short_names(model: nn.Module, adapted: Sequence[str]) -> list[str]:
    """The adapted layers by the ends of their names where those say the same; sorted, so that files are equal."""
    ends = sorted({name.rpartition(".")[2] for name in adapted})
    plain = {name.replace(".base_layer", "") for name, _ in model.named_modules()}
    said = {name for name in plain if name.rpartition(".")[2] in ends}
    return ends if said == set(adapted) else sorted(adapted)


def _integer_if_whole(value: float) -> int | float:
    return int(value) if value == int(value) else value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warnings about what the checks of this room refuse or allow on purpose."""
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def _peft() -> Any:
    """The peft package, which is an extra."""
    try:
        import peft
    except ImportError as error:
        raise RecipeError(
            "adapters need the package peft, which is not installed",
            where="adapter",
            fix="pip install 'inspo-hub[peft]'",
        ) from error
    return peft
