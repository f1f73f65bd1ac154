"""What follows training: the evaluation, and what a person reads at the end of a run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.plan import LOCK_FILE
from inspo_hub.training.checkpoints import write_json_atomically
from inspo_hub.training.records import JsonLines

if TYPE_CHECKING:
    from inspo_hub.card import CardFacts
    from inspo_hub.recipe import Recipe
    from inspo_hub.training.job import VariantJob

log = logging.getLogger(__name__)

EVALUATED = "evaluated.json"


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

    key = _key(recipe, summaries)
    done = output / "report" / EVALUATED
    comparison = output / "report" / "comparison.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == key and comparison.is_file():
        return dict(json.loads(comparison.read_text(encoding="utf-8")))
    first = jobs[0]
    result = evaluate_variants(
        recipe.evaluate,
        first.model_path,
        {job.name: job.output for job in jobs},
        first.output,
        output,
        {name: training_numbers(summary) for name, summary in summaries.items()},
        rows=_prompts(first),
        chat_template=Path(first.recipe.model.chat_template) if first.recipe.model.chat_template else None,
        chat_template_kwargs=recipe.data.chat_template_kwargs,
        text_format=recipe.data.text_format,
        seed=recipe.seed,
    )
    write_json_atomically(done, key)
    log.info("\n%s", to_text(result))
    return result.to_dict()


def _prompts(job: VariantJob) -> list[dict[str, Any]]:
    """The rows of the evaluation's prompt set."""
    from inspo_hub.pairs import PairSource, load_rows

    section = job.recipe.evaluate
    assert section is not None, "asked for only where the recipe evaluates"
    source = section.prompts
    return load_rows(
        PairSource(id=source.id, local_path=str(job.prompts_path), config=source.config, split=source.split)
    )


def _key(recipe: Recipe, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    assert recipe.evaluate is not None
    settings = json.dumps([recipe.evaluate.model_dump(mode="json"), recipe.seed], sort_keys=True)
    training = json.dumps({name: summary["training"] for name, summary in summaries.items()}, sort_keys=True)
    return {
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
        "training": hashlib.sha256(training.encode()).hexdigest(),
    }


def write_cards(
    recipe: Recipe,
    jobs: Sequence[VariantJob],
    summaries: Mapping[str, Mapping[str, Any]],
    comparison: Mapping[str, Any] | None,
    output: Path,
    repos: Mapping[str, str],
) -> None:
    """recipe.yaml and README.md of every variant, and the comparison's card where there are several."""
    from inspo_hub.card import published_yaml, write_model_card, write_twin_card

    facts = [_card_facts(job, summaries, comparison, output, repos) for job in jobs]
    for job, one in zip(jobs, facts, strict=True):
        (job.output / "recipe.yaml").write_text(published_yaml(job.recipe), encoding="utf-8")
        write_model_card(job.output, one)
    if len(facts) > 1:
        write_twin_card(output, recipe, facts)


def _card_facts(
    job: VariantJob,
    summaries: Mapping[str, Mapping[str, Any]],
    comparison: Mapping[str, Any] | None,
    output: Path,
    repos: Mapping[str, str],
) -> CardFacts:
    """What the card of a variant says."""
    from inspo_hub.card import CardFacts, Twin

    others = {name: summary for name, summary in summaries.items() if name != job.name}
    return CardFacts(
        variant=job.name,
        recipe=job.recipe,
        base=job.plan.model,
        summary=summaries[job.name],
        lock=json.loads((job.output / LOCK_FILE).read_text(encoding="utf-8")),
        base_metadata=hub.metadata(job.plan.model),
        train=job.plan.train,
        heldout=job.plan.heldout,
        reference=job.plan.reference,
        metrics=JsonLines(job.output / "metrics.jsonl").read(),
        data_report=job.data_report.to_dict(),
        evaluation=comparison,
        repo_id=repos.get(job.name),
        twins=[Twin(name=name, summary=summary, repo_id=repos.get(name)) for name, summary in others.items()],
        example=_example(output / "report"),
    )


def _example(report: Path) -> list[dict[str, str]] | None:
    """The first prompt that was answered in the evaluation, as messages; None where there was none."""
    generations = report / "generations.jsonl"
    if not generations.is_file():
        return None
    with generations.open(encoding="utf-8") as file:
        return list(json.loads(file.readline())["prompt"])


def tell(jobs: Sequence[VariantJob], output: Path, *, compared: bool) -> None:
    """Says where the results are."""
    lines = [f"{job.name}: {job.output}" for job in jobs]
    if compared:
        lines.append(f"comparison: {output / 'report' / 'comparison.md'}")
    log.info("%s", "\n".join(["results", *(f"  {line}" for line in lines)]))
