"""Recipe -> one VariantJob per variant: everything it names is pinned, on this machine, tokenised and checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist
from accelerate import PartialState

from inspo_hub import hub
from inspo_hub.models import load_tokenizer
from inspo_hub.pairs import PairSource, PreparedData, prepare_pairs, separator_ids
from inspo_hub.plan import LOCK_FILE, Lock, Plan, compare_lock, make_plans, read_lock, refuse_drift, write_lock
from inspo_hub.publishing import fetch_checkpoints, preflight
from inspo_hub.recipe import HeldoutFraction, is_path
from inspo_hub.training.checkpoints import write_json_atomically
from inspo_hub.training.job import VariantJob

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.recipe import DataSource, Recipe

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def prepare_jobs(recipe: Recipe, output: Path, *, frozen: bool = False, resume: str = "auto") -> list[VariantJob]:
    """The variants of a recipe, ready to train in turn. Twins share pairs, order and held-out rows.

    The first process resolves and downloads before the others look, so that all of them see the same commits.

    Raises:
        ResolutionError: something cannot be found or reached, or moved since the lock although `frozen` forbids it.
        DataError: the data cannot be used.
    """
    folders = variant_folders(recipe, output)
    prepared = on_first_process(partial(_plan_and_fetch, recipe, output, folders, frozen=frozen, resume=resume))
    conditioned = any(_is_conditioned(plan.recipe) for plan, _ in prepared.values())
    jobs: list[VariantJob] = []
    known: dict[str, PreparedData] = {}
    for name, (plan, inputs) in prepared.items():
        model = plan.recipe.model
        with PartialState().main_process_first():
            tokenizer = load_tokenizer(
                inputs.tokenizer,
                chat_template=Path(model.chat_template) if model.chat_template else None,
                trust_remote_code=model.trust_remote_code,
            )
            alternative = plan.recipe.alternative
            separator = separator_ids(tokenizer, alternative.format, alternative.turn_text)
            # Twins share their pairs: prepared, and reported, once.
            key = repr(
                (inputs.tokenizer, model.chat_template, separator, alternative.max_tokens, plan.data_fingerprint())
            )
            if key not in known:
                known[key] = _prepare(plan.recipe, inputs, tokenizer, separator, conditioned=conditioned)
            data = known[key]
        jobs.append(_job(name, plan, folders[name], inputs, tokenizer, separator, data, resume=resume))
    _record(jobs, frozen=frozen)
    return jobs


def variant_folders(recipe: Recipe, output: Path) -> dict[str, Path]:
    """Where each variant's results go: folders of their own below the output, or the output itself without variants."""
    return {name: output / name if recipe.variants else output for name in recipe.variant_recipes()}


@dataclass(frozen=True)
class Inputs:
    """What a variant names, on this machine, and the content identity of its weights."""

    model: Path
    tokenizer: Path
    weights: str
    reference: Path | None
    reference_weights: str
    train: tuple[Path, ...]
    heldout: tuple[Path, ...]
    prompts: Path | None


def _plan_and_fetch(
    recipe: Recipe, output: Path, folders: Mapping[str, Path], *, frozen: bool, resume: str
) -> dict[str, tuple[Plan, Inputs]]:
    """Everything pinned first, then downloaded and checked.

    A run that goes on keeps the commits it started with, wherever their branches are now. What would stop the run
    later (access, the target repository, disk space) stops it here, before anything large is downloaded.
    """
    if resume == "hub":
        fetch_checkpoints(recipe, folders)
    locks = {name: read_lock(folder) for name, folder in folders.items() if (folder / LOCK_FILE).is_file()}
    goes_on = resume != "none" and not frozen
    plans = make_plans(recipe.variant_recipes(), locks=locks, from_lock=goes_on)
    if frozen:
        for name, lock in locks.items():
            refuse_drift(compare_lock(lock, plans[name]), where=str(folders[name] / LOCK_FILE))
    hub.refuse(preflight(recipe, plans, output))
    return {name: (plan, _fetch(plan)) for name, plan in plans.items()}


def _fetch(plan: Plan) -> Inputs:
    code = plan.recipe.model.trust_remote_code
    weights = hub.weights_identity(plan.model)
    return Inputs(
        model=hub.fetch(plan.model, code=code),
        tokenizer=hub.fetch(plan.tokenizer, "tokenizer", code=code),
        weights=weights,
        reference=hub.fetch(plan.reference, code=code) if plan.reference else None,
        reference_weights=hub.weights_identity(plan.reference) if plan.reference else weights,
        train=tuple(hub.fetch(pin) for pin in plan.train),
        heldout=tuple(hub.fetch(pin) for pin in plan.heldout),
        prompts=hub.fetch(plan.prompts) if plan.prompts else None,
    )


def _record(jobs: Sequence[VariantJob], *, frozen: bool) -> None:
    """Writes each variant's lock and data report, now that its pairs are known; `frozen` refuses other pairs."""
    if not PartialState().is_main_process:
        return
    for job in jobs:
        path = job.output / LOCK_FILE
        if frozen and path.is_file():
            moved = compare_lock(read_lock(path), job.plan, pairs_fingerprint=job.data_fingerprint)
            refuse_drift(moved, where=str(path))
        write_lock(Lock.of(job.plan, pairs_fingerprint=job.data_fingerprint), job.output)
        (job.output / "report").mkdir(exist_ok=True)
        write_json_atomically(job.output / "report" / "data.json", job.data_report.to_dict())


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
        text_format=data.text_format,
        chat_template_kwargs=data.chat_template_kwargs,
    )


def _local(sources: Sequence[DataSource], paths: Sequence[Path]) -> list[PairSource]:
    """The sources with their folders on this machine; a local one is called by its name, which means something to
    others, and not by its path, which does not."""
    found = []
    for source, path in zip(sources, paths, strict=True):
        name = Path(source.id).name if is_path(source.id) else source.id
        found.append(replace(PairSource.of(source, local_path=str(path)), id=name))
    return found


def _job(
    name: str,
    plan: Plan,
    output: Path,
    inputs: Inputs,
    tokenizer: PreTrainedTokenizerBase,
    separator: tuple[int, ...],
    data: PreparedData,
    *,
    resume: str,
) -> VariantJob:
    recipe, initial = plan.recipe, inputs.reference is None
    return VariantJob(
        name=name,
        recipe=recipe,
        plan=plan,
        output=output,
        model_path=inputs.model,
        weights=inputs.weights,
        reference_path=inputs.reference,
        reference_weights=inputs.reference_weights,
        reference_name=f"initial policy ({plan.model})" if initial else f"model {plan.reference}",
        tokenizer=tokenizer,
        train=data.train,
        heldout=data.heldout if len(data.heldout) else None,
        separator=separator,
        data_fingerprint=data.fingerprint,
        data_report=data.report,
        prompts_path=inputs.prompts,
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
