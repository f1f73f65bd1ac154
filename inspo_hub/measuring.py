"""What a recipe's `evaluate:` asks for beside judged answers: held-out preferences, and the time of answering."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.describing import MEASUREMENTS, Measurement, measurement_key, measurement_of
from inspo_hub.finishing import system_of
from inspo_hub.training.checkpoints import write_json_atomically

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)


def measure(
    recipe: Recipe, jobs: Sequence[VariantJob], summaries: Mapping[str, Mapping[str, Any]], output: Path
) -> list[Measurement]:
    """Measures what the recipe asks for and was not measured of the same weights; the names of what is there now."""
    found: list[Measurement] = []
    for name in MEASUREMENTS:
        key = measurement_key(recipe, name, summaries)
        if key is None:
            continue
        found.append(name)
        if measurement_of(output, name) is None:
            log.info("measuring: %s", name)
            measured = _preferences(recipe, jobs, summaries) if name == "preferences" else _latency(recipe, jobs)
            write_json_atomically(output / "report" / f"{name}.json", {"of": key, **measured})
    return found


def _preferences(
    recipe: Recipe, jobs: Sequence[VariantJob], summaries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    from inspo_hub.evaluate import Measured, PreferenceMeasurement, measure_preferences

    assert recipe.evaluate is not None
    section = recipe.evaluate.preferences
    assert section is not None, "asked for only where the recipe measures preferences"
    variants = {
        job.name: Measured(
            system=system_of(job),
            pairs=list(job.heldout or ())[: section.limit],
            rules=_rules(job),
            layout=summaries[job.name]["layout"],
        )
        for job in jobs
    }
    how = PreferenceMeasurement(
        tokenizer=jobs[0].tokenizer,
        novel=section.novel,
        max_new_tokens=section.max_new_tokens,
        tokens_per_microbatch=recipe.train.tokens_per_microbatch,
        resamples=recipe.evaluate.bootstrap,
        seed=recipe.seed,
    )
    return measure_preferences(_base(jobs), variants, how).to_dict()


def _rules(job: VariantJob) -> Any:
    from inspo_hub.evaluate import ContextRules

    return ContextRules(
        separator=job.separator,
        max_alternative_tokens=job.recipe.alternative.max_tokens,
        max_length=job.recipe.data.max_length,
    )


def _latency(recipe: Recipe, jobs: Sequence[VariantJob]) -> dict[str, Any]:
    from inspo_hub.evaluate import LatencyWorkload, measure_latency

    assert recipe.evaluate is not None
    section = recipe.evaluate.latency
    assert section is not None, "asked for only where the recipe measures latency"
    workload = LatencyWorkload(**section.model_dump())
    variants = {job.name: system_of(job) for job in jobs}
    return measure_latency(_base(jobs), variants, workload, seed=recipe.seed).to_dict()


def _base(jobs: Sequence[VariantJob]) -> Any:
    """What the variants were trained from, as it was in memory."""
    from inspo_hub.evaluate import System

    quantized = all(job.recipe.adapter is not None and job.recipe.adapter.quantize is not None for job in jobs)
    return System(model=jobs[0].model_path, quantized=quantized)
