"""What follows training: the evaluation, and what a person reads at the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.describing import EVALUATED, evaluation_key, evaluation_of
from inspo_hub.recipe.prompt_sets import PROMPT_SETS
from inspo_hub.training.checkpoints import write_json_atomically

if TYPE_CHECKING:
    from inspo_hub.evaluate import System
    from inspo_hub.recipe import EvaluateSection, Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)


def training_numbers(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """What the comparison shows of a training: held-out margins where there are held-out pairs, and what it cost."""
    margins = summary["heldout"] or summary["train"]
    names = ("plain_margin", "plain_accuracy", "conditioned_margin", "distillation_gap")
    numbers = {name: margins.get(name) for name in names}
    return {**numbers, "tokens_per_step": summary["tokens_per_step"], "seconds_per_step": summary["seconds_per_step"]}


def evaluate(
    recipe: Recipe, jobs: Sequence[VariantJob], summaries: Mapping[str, Mapping[str, Any]], output: Path
) -> dict[str, Any] | None:
    """The recipe's evaluation of all variants, as `comparison.json` holds it; None where the recipe has none.

    Nothing is generated again where the same weights were evaluated with the same settings.
    """
    if recipe.evaluate is None:
        return None
    from inspo_hub.evaluate import evaluate_variants
    from inspo_hub.evaluate.report import to_text

    known = evaluation_of(output)
    if known is not None:
        return known
    first = jobs[0]
    result = evaluate_variants(
        recipe.evaluate,
        first.model_path,
        {job.name: system_of(job) for job in jobs},
        first.output,
        output,
        {name: training_numbers(summary) for name, summary in summaries.items()},
        **evaluation_prompts(recipe.evaluate, first.prompts_path, pinned=str(first.plan.prompts)),
        judge_path=first.judge_path,
        chat_template=Path(first.recipe.model.chat_template) if first.recipe.model.chat_template else None,
        chat_template_kwargs=recipe.data.chat_template_kwargs,
        text_format=recipe.data.text_format,
        seed=recipe.seed,
    )
    write_json_atomically(output / "report" / EVALUATED, evaluation_key(recipe, summaries))
    log.info("\n%s", to_text(result))
    return result.to_dict()


def system_of(job: VariantJob) -> System:
    """What a trained variant answers with."""
    from inspo_hub.evaluate import System

    adapter = job.recipe.adapter
    if adapter is None:
        return System(model=job.output)
    return System(model=job.model_path, adapter=job.output, quantized=adapter.quantize is not None)


def evaluation_prompts(section: EvaluateSection, path: Path | None, *, pinned: str) -> dict[str, Any]:
    """The evaluation's prompts, as `evaluate_variants` takes them: a benchmark, or the rows of a data set."""
    from inspo_hub.evaluate.benchmarks import read_benchmark
    from inspo_hub.pairs import PairSource, load_rows

    assert path is not None, "an evaluation has prompts"
    source = section.prompts
    if source.id in PROMPT_SETS:
        return {"benchmark": read_benchmark(source.id, path, pinned)}
    found = PairSource(id=source.id, local_path=str(path), config=source.config, split=source.split)
    return {"rows": load_rows(found)}


def tell(jobs: Sequence[VariantJob], output: Path, report: Sequence[str]) -> None:
    """Says where the results are; `report` are the files to read first."""
    lines = [f"{job.name}: {job.output}" for job in jobs]
    lines += [f"report: {file}" for file in report]
    if all(job.recipe.publish is None for job in jobs):
        lines.append(f"to publish: inspo-hub publish {output} --repo OWNER/NAME")
    log.info("%s", "\n".join(["results", *(f"  {line}" for line in lines)]))
