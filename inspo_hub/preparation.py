"""Recipe -> one VariantJob per variant: everything it names is pinned, on this machine, tokenised and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from accelerate import PartialState

from inspo_hub import hub
from inspo_hub.describing import base_metadata, draft_card, note
from inspo_hub.errors import ResolutionError
from inspo_hub.models import load_tokenizer
from inspo_hub.pairs import PairSource, PreparedData, prepare_pairs, separator_ids
from inspo_hub.plan import (
    LOCK_FILE,
    RUN_SHA256,
    Lock,
    Plan,
    compare_lock,
    make_plans,
    read_lock,
    refuse_drift,
    write_lock,
)
from inspo_hub.publishing import fetch_checkpoints, preflight
from inspo_hub.recipe import HeldoutFraction
from inspo_hub.training.checkpoints import write_json_atomically
from inspo_hub.training.job import VariantJob
from inspo_hub.training.outputs import refuse_another_recipe, remove_unfinished
from inspo_hub.training.processes import on_first_process

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.recipe import DataSource, Recipe

log = logging.getLogger(__name__)

WITH_ALTERNATIVE = "pairs_leave_room_for_an_alternative"
"""In a lock: whether pairs were cut to fit with an alternative in their context, for this variant or for a twin."""


def prepare_jobs(
    recipe: Recipe, output: Path, *, frozen: bool = False, resume: str = "auto", pinned: bool = False
) -> list[VariantJob]:
    """The variants of a recipe, ready to train in turn. Twins share pairs, order and held-out rows.

    The first process resolves and downloads before the others look, so that all of them see the same commits.

    Raises:
        ResolutionError: something cannot be found or reached, or moved since the lock although `frozen` forbids it.
        DataError: the data cannot be used.
    """
    folders = variant_folders(recipe, output)
    lock_rule: LockRule = "exact" if pinned else "refuse" if frozen else "start over" if resume == "none" else "go on"
    prepared, conditioned = on_first_process(
        partial(_plan_and_fetch, recipe, output, folders, lock_rule=lock_rule, from_hub=resume == "hub")
    )
    jobs = _jobs(prepared, folders, resume=resume, conditioned=conditioned)
    _record(jobs, recipe, refuse=lock_rule in ("refuse", "exact"), conditioned=conditioned)
    return jobs


def inspect_jobs(recipe: Recipe, output: Path) -> list[VariantJob]:
    """The same jobs, only to look at them: nothing is written to `output`, no repository is made, no lock is read.

    Raises:
        ResolutionError, DataError: as `prepare_jobs`.
    """
    plans = make_plans(recipe.variant_recipes())
    prepared = {name: (plan, _fetch(plan)) for name, plan in plans.items()}
    conditioned = any(_is_conditioned(plan.recipe) for plan in plans.values())
    return _jobs(prepared, variant_folders(recipe, output), resume="none", conditioned=conditioned)


def _jobs(
    prepared: Mapping[str, tuple[Plan, Inputs]], folders: Mapping[str, Path], *, resume: str, conditioned: bool
) -> list[VariantJob]:
    """One job per variant, each with its pairs."""
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
    return jobs


def variant_folders(recipe: Recipe, output: Path) -> dict[str, Path]:
    """Where each variant's results go: folders of their own below the output, or the output itself without variants."""
    return {name: output / name if recipe.has_variants else output for name in recipe.variant_recipes()}


@dataclass(frozen=True)
class Inputs:
    """What a variant names, on this machine, and the content identity of its weights."""

    model: Path
    tokenizer: Path
    base_adapter: Path | None
    weights: str
    reference: Path | None
    reference_weights: str
    train: tuple[Path, ...]
    heldout: tuple[Path, ...]
    prompts: Path | None
    judge: Path | None


LockRule = Literal["go on", "start over", "refuse", "exact"]
"""What an earlier lock in the output is for. `go on`: a run keeps the commits that it started with, wherever their
branches are now; `start over`: everything is resolved anew; `refuse`: the same, and what moved stops the run;
`exact`: the commits of the lock, and whatever else differs stops the run."""


def _plan_and_fetch(
    recipe: Recipe, output: Path, folders: Mapping[str, Path], *, lock_rule: LockRule, from_hub: bool
) -> tuple[dict[str, tuple[Plan, Inputs]], bool]:
    """(Everything pinned first, then downloaded and checked; whether pairs must leave room for an alternative).

    What would stop the run later (access, the target repository, disk space) stops it here, before anything large is
    downloaded.
    """
    remove_unfinished([output, *folders.values()])
    if from_hub:
        fetch_checkpoints(recipe, folders)
    if lock_rule != "start over":
        for name, variant in recipe.variant_recipes().items():
            refuse_another_recipe(folders[name], variant)
    must_exist = lock_rule in ("refuse", "exact")
    locks = {name: read_lock(folder) for name, folder in folders.items() if must_exist or _has_lock(folder)}
    plans = _plans(recipe, output, locks, from_lock=lock_rule in ("go on", "exact"))
    if must_exist:
        for name, lock in locks.items():
            refuse_drift(compare_lock(lock, plans[name]), where=str(folders[name] / LOCK_FILE))
    metadata = {name: base_metadata(plan, folders[name]) for name, plan in plans.items()}
    cards = {name: draft_card(plan, metadata[name]) for name, plan in plans.items()}
    hub.refuse(preflight(recipe, plans, output, cards))
    note(recipe, plans, folders, metadata, output)
    # A twin that is trained again on its own gets the pairs that all of the twins got.
    twins = lock_rule == "exact" and any(lock.extra.get(WITH_ALTERNATIVE) for lock in locks.values())
    conditioned = twins or any(_is_conditioned(plan.recipe) for plan in plans.values())
    return {name: (plan, _fetch(plan)) for name, plan in plans.items()}, conditioned


def _has_lock(folder: Path) -> bool:
    return (folder / LOCK_FILE).is_file()


def _plans(recipe: Recipe, output: Path, locks: Mapping[str, Lock], *, from_lock: bool) -> dict[str, Plan]:
    """The plans; where something cannot be pinned or read, what else is wrong is told with it."""
    try:
        return make_plans(recipe.variant_recipes(), locks=locks, from_lock=from_lock)
    except ResolutionError as error:
        hub.refuse([error, *preflight(recipe, {}, output, {}, create=False)])
        raise


def _fetch(plan: Plan) -> Inputs:
    code = plan.recipe.model.trust_remote_code
    weights = _initial_weights(plan)
    return Inputs(
        model=hub.fetch(plan.model, code=code),
        tokenizer=hub.fetch(plan.tokenizer, "tokenizer", code=code),
        base_adapter=hub.fetch(plan.base_adapter) if plan.base_adapter else None,
        weights=weights,
        reference=hub.fetch(plan.reference, code=code) if plan.reference else None,
        reference_weights=hub.weights_identity(plan.reference) if plan.reference else weights,
        train=tuple(hub.fetch(pin) for pin in plan.train),
        heldout=tuple(hub.fetch(pin) for pin in plan.heldout),
        prompts=hub.fetch(plan.prompts, patterns=plan.prompts_files) if plan.prompts else None,
        judge=hub.fetch(plan.judge) if plan.judge else None,
    )


def _initial_weights(plan: Plan) -> str:
    """The identity of the policy before training. A new adapter adds nothing yet: then it is the base's."""
    base = hub.weights_identity(plan.model)
    if plan.base_adapter is None:
        return base
    return hub.digest({"model": base, "adapter": hub.weights_identity(plan.base_adapter)})


def _record(jobs: Sequence[VariantJob], recipe: Recipe, *, refuse: bool, conditioned: bool) -> None:
    """Writes each variant's lock and data report, now that its pairs are known; `refuse` takes no other pairs."""
    state = PartialState()
    if not state.is_main_process:
        return
    whole = {RUN_SHA256: recipe.sha256()}  # a variant's own hash stands in its lock
    extra = whole | {WITH_ALTERNATIVE: conditioned, "processes": state.num_processes, "device": state.device.type}
    for job in jobs:
        path = job.output / LOCK_FILE
        if refuse and path.is_file():
            moved = compare_lock(read_lock(path), job.plan, pairs_fingerprint=job.data_fingerprint)
            refuse_drift(moved, where=str(path))
        write_lock(Lock.of(job.plan, pairs_fingerprint=job.data_fingerprint, extra=extra), job.output)
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
    """The sources with their folders on this machine."""
    return [
        replace(PairSource.of(source, local_path=str(path)), id=source.shown_name)
        for source, path in zip(sources, paths, strict=True)
    ]


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
    return VariantJob(
        name=name,
        recipe=plan.recipe,
        plan=plan,
        output=output,
        model_path=inputs.model,
        weights=inputs.weights,
        adapter_path=inputs.base_adapter,
        reference_path=inputs.reference,
        reference_weights=inputs.reference_weights,
        reference_name=_reference_name(plan),
        tokenizer=tokenizer,
        train=data.train,
        heldout=data.heldout if len(data.heldout) else None,
        separator=separator,
        data_fingerprint=data.fingerprint,
        data_report=data.report,
        prompts_path=inputs.prompts,
        judge_path=inputs.judge,
        cache=hub.cache_dir() / "reference",
        resume=resume,
    )


def _reference_name(plan: Plan) -> str:
    """What the reference is, for people."""
    if plan.reference is not None:
        return f"model {plan.reference}"
    if plan.recipe.adapter is None:
        return f"initial policy ({plan.model})"
    if plan.base_adapter is None:
        return f"base with the adapter off ({plan.model})"
    return f"initial policy ({plan.model} with adapter {plan.base_adapter})"


def _is_conditioned(variant: Recipe) -> bool:
    return any("given" in score for score in variant.conditioning.scores)
