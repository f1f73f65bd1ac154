"""Every round against the model before the first one, by the recipe's evaluation."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from inspo_hub import hub
from inspo_hub.describing import SUMMARY
from inspo_hub.evaluate import System, evaluate_variants
from inspo_hub.evaluate.report import to_text
from inspo_hub.finishing import evaluation_prompts, training_numbers
from inspo_hub.iterating.rounds import Policy, round_name
from inspo_hub.iterating.sampling import Sampler, judge_path
from inspo_hub.recipe import Recipe
from inspo_hub.recipe.prompt_sets import prompts_repository

log = logging.getLogger(__name__)

COMPARED = "compared.json"


def compare_rounds(recipe: Recipe, folder: Path, rounds: int) -> None:
    """Writes report/comparison.md and .json; nothing is generated again for the same weights and settings."""
    section = recipe.evaluate
    assert section is not None, "asked for only where the recipe evaluates"
    policy = Policy.initial(recipe)
    first = Sampler(recipe=recipe, policy=policy, number=0).system()
    systems: dict[str, System] = {}
    summaries, weights = {}, {}
    for number in range(1, rounds + 1):
        output = folder / round_name(number)
        policy = policy.after(recipe, output)
        systems[round_name(number)] = Sampler(recipe=recipe, policy=policy, number=number).system()
        weights[round_name(number)] = hub.weights_identity(hub.resolve("model", str(output)))
        summaries[round_name(number)] = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
    key = {**weights, "settings": hub.digest({"evaluate": section.model_dump_json(), "seed": str(recipe.seed)})}
    done = folder / "report" / COMPARED
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == key:
        return
    id, revision, files = prompts_repository(section.prompts)
    pin = hub.resolve("dataset", id, revision)
    result = evaluate_variants(
        section,
        first.model,
        systems,
        folder / round_name(1),
        folder,
        {name: training_numbers(summary) for name, summary in summaries.items()},
        **evaluation_prompts(section, hub.fetch(pin, patterns=files), pinned=str(pin)),
        judge_path=judge_path(section.judge),
        chat_template=Path(recipe.model.chat_template) if recipe.model.chat_template else None,
        chat_template_kwargs=recipe.data.chat_template_kwargs,
        text_format=recipe.data.text_format,
        seed=recipe.seed,
    )
    hub.write_json(done, key)
    log.info("\n%s", to_text(result))
