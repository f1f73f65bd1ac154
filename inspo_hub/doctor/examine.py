"""The examination: the recipe's own pairs and base, as the run would have them, and everything that is looked at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from inspo_hub.describing import base_metadata, draft_card
from inspo_hub.doctor.conditioned import gate_finding, margin_findings, offset_finding
from inspo_hub.doctor.data import data_findings
from inspo_hub.doctor.environment import access_findings, environment_findings
from inspo_hub.doctor.findings import Diagnosis, Finding
from inspo_hub.doctor.offsets import Offsets, Scorer, measure_offsets
from inspo_hub.errors import DataError, TrainingError
from inspo_hub.logprobs import prepare_model
from inspo_hub.models import compute_dtype, embedding_rows, load_model
from inspo_hub.pairs import check_vocabulary, separator_ids
from inspo_hub.preparation import inspect_jobs
from inspo_hub.publishing import preflight
from inspo_hub.quiet import quieter
from inspo_hub.training.engine import join_launch
from inspo_hub.training.policy import load_policy
from inspo_hub.training.startup import startup_check

if TYPE_CHECKING:
    from torch import nn

    from inspo_hub.errors import ResolutionError
    from inspo_hub.packing import Layout
    from inspo_hub.pairs import PreferencePair
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

DEFAULT_PAIRS = 64
"""Pairs that are scored: the std of an offset is then known within a tenth."""


def examine(recipe: Recipe, output: Path, *, pairs: int = DEFAULT_PAIRS) -> Diagnosis:
    """Looks at everything a run of this recipe depends on. Trains nothing and writes nothing but the caches.

    Args:
        output: where the run would write: its disk is looked at.
        pairs: training pairs that the base scores, spread over the data.

    Raises:
        RecipeError, DataError: the recipe or its data cannot be used.
        ResolutionError: something that the recipe names cannot be found or loaded.
    """
    device = join_launch().device
    with quieter("inspo_hub.pairs", logging.WARNING):  # the findings tell it
        jobs = inspect_jobs(recipe, output)
    recipes = [job.recipe for job in jobs]
    findings: list[Finding] = []
    for job in _different(jobs):
        findings += data_findings(job.data_report, job.train, bos_id=job.tokenizer.bos_token_id)
    findings += environment_findings(recipes, device)
    findings += access_findings(_preflight(recipe, jobs, output))
    for group in _groups(jobs):
        findings += _base_findings(group, device, pairs)
    return Diagnosis.of(recipe.name, findings)


def _different(jobs: Sequence[VariantJob]) -> list[VariantJob]:
    """One job of those that share their pairs."""
    return list({job.data_fingerprint: job for job in jobs}.values())


def _groups(jobs: Sequence[VariantJob]) -> list[list[VariantJob]]:
    """Jobs whose base, reference and way of showing an alternative are the same: what is measured holds for all."""
    groups: dict[str, list[VariantJob]] = {}
    for job in jobs:
        recipe = job.recipe
        base = (job.model_path, job.adapter_path, job.reference_path, recipe.model)
        groups.setdefault(repr((base, recipe.alternative, job.data_fingerprint)), []).append(job)
    return list(groups.values())


def _preflight(recipe: Recipe, jobs: Sequence[VariantJob], output: Path) -> list[ResolutionError]:
    plans = {job.name: job.plan for job in jobs}
    cards = {job.name: draft_card(job.plan, base_metadata(job.plan, job.output)) for job in jobs}
    return preflight(recipe, plans, output, cards, create=False)


# --- the base -----------------------------------------------------------------------------------------------------


def _base_findings(jobs: Sequence[VariantJob], device: torch.device, count: int) -> list[Finding]:
    """Everything that needs the weights."""
    job = jobs[0]
    model = load_policy(job, device).model
    check_vocabulary(max(job.train.max_id(), job.heldout.max_id() if job.heldout else -1), embedding_rows(model))
    found, layout = _packing(job, model)
    findings = [_context_window(job, model), found]
    conditioned = {
        each.name: each.recipe for each in jobs if any("given" in s for s in each.recipe.conditioning.scores)
    }
    if layout is None or not conditioned or len(job.train) < 2:
        return findings
    rows = np.unique(np.linspace(0, len(job.train) - 1, min(count, len(job.train))).astype(np.int64))
    pairs = [job.train[int(row)] for row in rows]
    scorer = _scorer(job, model, layout, device)
    own = job.recipe.alternative.format
    offsets = {name: measure_offsets(scorer, pairs, ids) for name, ids in _separators(job).items()}
    findings += [offset_finding(offsets, own), gate_finding(offsets[own], conditioned)]
    return [*findings, *margin_findings(conditioned, offsets[own], _reference(job, pairs, layout, device))]


def _packing(job: VariantJob, model: nn.Module) -> tuple[Finding, Layout | None]:
    """The start-up check that the run makes, and the layout it comes to; None where the model cannot be trained."""
    try:
        check = startup_check(job, model)
    except TrainingError as error:
        return Finding(
            check="packing", severity="problem", measured=error.what, means=error.expected, do=error.fix
        ), None
    measured = f"largest difference of a log-probability {check.max_abs_difference:.1e} nats; {check.reason}"
    wanted, numbers = job.recipe.model.attention, {"max_abs_difference": check.max_abs_difference}
    if check.layout == "tree" or wanted == "flat":
        means = (
            f"pairs are packed {'as trees' if wanted != 'flat' else 'flat, as the recipe says'}, and scores are exact"
        )
        return Finding(check="packing", severity="ok", measured=measured, means=means, numbers=numbers), (
            "flat" if wanted == "flat" else check.layout
        )
    if wanted == "tree":
        return Finding(check="packing", severity="problem", measured=measured, means="the run refuses to start",
                       do="set model.attention: auto or flat", numbers=numbers), "flat"  # fmt: skip
    return Finding(
        check="packing",
        severity="advice",
        measured=measured,
        means="every path is a row of its own, with its prompt: more tokens where prompts are long",
        do="nothing for correctness; a base whose layers all have full or sliding attention trains faster",
        numbers=numbers,
    ), "flat"


def _context_window(job: VariantJob, model: Any) -> Finding:
    config = model.config.get_text_config()
    window, longest = getattr(config, "max_position_embeddings", None), job.recipe.data.max_length
    measured = f"data.max_length {longest:,}, the base's max_position_embeddings {window or 'not given'}"
    if window is None or longest <= window:
        return Finding(check="context window", severity="ok", measured=measured, means="the longest path fits")
    return Finding(
        check="context window",
        severity="problem",
        measured=measured,
        means="positions that the base was not made for: a path holds prompt, alternative, separator and response",
        do=f"set data.max_length: {window}",
    )


def _scorer(job: VariantJob, model: nn.Module, layout: Layout, device: torch.device) -> Scorer:
    prepare_model(model, layout=layout)
    return Scorer(
        model=model.eval(),
        layout=layout,
        tokens_per_microbatch=job.recipe.train.tokens_per_microbatch,
        max_length=job.recipe.data.max_length,
        max_alternative_tokens=job.recipe.alternative.max_tokens,
        compute_dtype=compute_dtype(job.recipe.model.compute_dtype, device),
    )


def _separators(job: VariantJob) -> dict[str, tuple[int, ...]]:
    """Tokens between alternative and response in the recipe's format, and in the other where the template has it."""
    found: dict[str, tuple[int, ...]] = {job.recipe.alternative.format: job.separator}
    formats: tuple[Literal["turn"], Literal["concat"]] = ("turn", "concat")
    for name in formats:
        try:
            ids = separator_ids(job.tokenizer, name, job.recipe.alternative.turn_text)
        except DataError:  # this template cannot write it: there is nothing to compare with
            continue
        found.setdefault(name, ids)
    return found


def _reference(
    job: VariantJob, pairs: Sequence[PreferencePair], layout: Layout, device: torch.device
) -> Offsets | None:
    """The pairs under another reference model; None where the reference is the initial policy."""
    if job.reference_path is None:
        return None
    model = load_model(job.reference_path, trust_remote_code=job.recipe.model.trust_remote_code).to(device)  # type: ignore[arg-type]
    return measure_offsets(_scorer(job, model, layout, device), pairs, job.separator)
