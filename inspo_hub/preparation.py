"""Recipe -> one VariantJob per variant: everything it names is pinned, on this machine, tokenised and checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist
from accelerate import PartialState

from inspo_hub import hub
from inspo_hub.models import load_tokenizer
from inspo_hub.pairs import PairSource, PreparedData, prepare_pairs, separator_ids
from inspo_hub.recipe import HeldoutFraction
from inspo_hub.training.job import VariantJob

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.recipe import DataSource, Recipe

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def prepare_jobs(recipe: Recipe, output: Path, *, resume: str) -> list[VariantJob]:
    """The variants of a recipe, ready to train in turn. Twins share pairs, order and held-out rows.

    The first process resolves and downloads before the others look, so that all of them see the same commits.
    """
    variants = recipe.variant_recipes()
    conditioned = any(_is_conditioned(variant) for variant in variants.values())
    jobs = []
    for name, variant in variants.items():
        inputs = on_first_process(partial(fetch_inputs, variant))
        with PartialState().main_process_first():
            tokenizer = load_tokenizer(
                inputs.tokenizer,
                chat_template=Path(variant.model.chat_template) if variant.model.chat_template else None,
                trust_remote_code=variant.model.trust_remote_code,
            )
            separator = separator_ids(tokenizer, variant.alternative.format, variant.alternative.turn_text)
            data = _prepare(variant, inputs, tokenizer, separator, conditioned=conditioned)
        folder = output / name if recipe.variants else output
        jobs.append(_job(name, variant, folder, inputs, tokenizer, separator, data, resume=resume))
    return jobs


@dataclass(frozen=True)
class Inputs:
    """What a variant names, on this machine, with what identifies it."""

    model: Path
    tokenizer: Path
    weights: str
    """Content identity of the model's weights."""
    reference: Path | None
    reference_weights: str
    train: tuple[Path, ...]
    heldout: tuple[Path, ...]
    pinned: dict[str, hub.Pinned]
    """By the recipe key that names it."""


def fetch_inputs(variant: Recipe) -> Inputs:
    """Pins everything a variant names to commits or paths, then downloads and checks it."""
    heldout = variant.data.heldout if isinstance(variant.data.heldout, tuple) else ()
    model = hub.resolve("model", variant.model.id, variant.model.revision)
    tokenizer = model
    if variant.model.tokenizer:
        tokenizer = hub.resolve("model", variant.model.tokenizer, variant.model.tokenizer_revision)
    reference = None
    if variant.reference.source == "model":
        assert variant.reference.id is not None, "the recipe checked it"
        reference = hub.resolve("model", variant.reference.id, variant.reference.revision)
    train = [hub.resolve("dataset", source.id, source.revision) for source in variant.data.train]
    held = [hub.resolve("dataset", source.id, source.revision) for source in heldout]
    pinned = {"model": model, "tokenizer": tokenizer} | ({"reference": reference} if reference else {})
    pinned |= {f"data.train.{number}": pin for number, pin in enumerate(train)}
    pinned |= {f"data.heldout.{number}": pin for number, pin in enumerate(held)}
    code = variant.model.trust_remote_code
    weights = hub.weights_identity(model)
    return Inputs(
        model=hub.fetch(model, code=code),
        tokenizer=hub.fetch(tokenizer, "tokenizer", code=code),
        weights=weights,
        reference=hub.fetch(reference, code=code) if reference else None,
        reference_weights=hub.weights_identity(reference) if reference else weights,
        train=tuple(hub.fetch(pin) for pin in train),
        heldout=tuple(hub.fetch(pin) for pin in held),
        pinned=pinned,
    )


def _prepare(
    variant: Recipe, inputs: Inputs, tokenizer: PreTrainedTokenizerBase, separator: Sequence[int], *, conditioned: bool
) -> PreparedData:
    data = variant.data
    heldout: float | list[PairSource] | None = None
    if isinstance(data.heldout, HeldoutFraction):
        heldout = data.heldout.fraction
    elif data.heldout:
        heldout = _local(data.heldout, inputs.heldout)
    return prepare_pairs(
        _local(data.train, inputs.train),
        tokenizer,
        seed=variant.seed,
        max_length=data.max_length,
        conditioned=conditioned,
        separator=separator,
        max_alternative_tokens=variant.alternative.max_tokens,
        on_overlong=data.on_overlong,
        on_invalid=data.on_invalid,
        heldout=heldout,
    )


def _local(sources: Sequence[DataSource], paths: Sequence[Path]) -> list[PairSource]:
    return [PairSource.of(source, local_path=str(path)) for source, path in zip(sources, paths, strict=True)]


def _job(
    name: str,
    variant: Recipe,
    output: Path,
    inputs: Inputs,
    tokenizer: PreTrainedTokenizerBase,
    separator: tuple[int, ...],
    data: PreparedData,
    *,
    resume: str,
) -> VariantJob:
    initial = inputs.reference is None
    return VariantJob(
        name=name,
        recipe=variant,
        output=output,
        model_path=inputs.model,
        weights=inputs.weights,
        reference_path=inputs.reference,
        reference_weights=inputs.reference_weights,
        reference_name=f"initial policy ({variant.model.id})" if initial else f"model {variant.reference.id}",
        tokenizer=tokenizer,
        train=data.train,
        heldout=data.heldout if len(data.heldout) else None,
        separator=separator,
        data_fingerprint=data.fingerprint,
        data_report=data.report,
        pinned=inputs.pinned,
        cache=hub.cache_dir() / "reference",
        resume=resume,
    )


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


def _is_conditioned(variant: Recipe) -> bool:
    return any("given" in score for score in variant.conditioning.scores)
