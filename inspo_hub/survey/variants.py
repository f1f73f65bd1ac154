"""Recipe -> its variants with the facts behind every name, each looked up once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.pairs import PairSource
from inspo_hub.plan import make_plans
from inspo_hub.plan.variants import Variant
from inspo_hub.recipe.prompt_sets import PROMPT_SETS
from inspo_hub.survey.characters import facts_from_characters
from inspo_hub.survey.data import Reader
from inspo_hub.survey.model import adapter_parameters, model_facts
from inspo_hub.survey.tokenizers import INSTALL, missing_libraries, tokenizer_of

if TYPE_CHECKING:
    from inspo_hub.plan import Plan
    from inspo_hub.plan.facts import DataFacts, ModelFacts
    from inspo_hub.recipe import Recipe

DEFAULT_SAMPLE = 2048
"""Rows that are tokenised at most; data with no more of them are counted exactly."""


def survey(recipe: Recipe, *, sample_rows: int = DEFAULT_SAMPLE) -> list[Variant]:
    """Every variant of a recipe by its numbers.

    Raises:
        ResolutionError: something that the recipe names cannot be found or read.
        DataError: no row can be used, or the recipe's own policy stops at one.
    """
    plans = make_plans(recipe.variant_recipes())
    looker = _Looker(list(plans.values()), sample_rows)
    return [
        Variant.of(
            name,
            plan.recipe,
            looker.model(plan.model),
            looker.data(plan),
            reference=looker.model(plan.reference) if plan.reference else None,
            base_adapter=adapter_parameters(plan.base_adapter) if plan.base_adapter else None,
        )
        for name, plan in plans.items()
    ]


class _Looker:
    """Looks at models and data once each: twins share both."""

    def __init__(self, plans: list[Plan], sample_rows: int) -> None:
        self.sample_rows = sample_rows
        self.conditioned = any("given" in score for plan in plans for score in plan.recipe.conditioning.scores)
        self._models: dict[str, ModelFacts] = {}
        self._data: dict[str, DataFacts] = {}
        self._missing = missing_libraries()

    def model(self, pinned: hub.Pinned) -> ModelFacts:
        key = str(pinned)
        if key not in self._models:
            self._models[key] = model_facts(pinned)
        return self._models[key]

    def data(self, plan: Plan) -> DataFacts:
        recipe = plan.recipe
        key = repr((str(plan.tokenizer), recipe.model.chat_template, recipe.alternative, recipe.data, recipe.seed))
        if key not in self._data:
            self._data[key] = self._look(plan)
        return self._data[key]

    def _look(self, plan: Plan) -> DataFacts:
        if self._missing:
            why = f"{', '.join(self._missing)} not installed ({INSTALL})"
            return self._by_characters(plan, why)
        tokenizer = tokenizer_of(plan)
        if tokenizer is None:
            return self._by_characters(plan, f"{plan.tokenizer} has no tokenizer.json")
        return Reader(plan, tokenizer, self.conditioned, self.sample_rows, self._prompts(plan)).facts()

    def _by_characters(self, plan: Plan, why: str) -> DataFacts:
        return facts_from_characters(
            plan, conditioned=self.conditioned, sample_rows=self.sample_rows, prompts=self._prompts(plan), why=why
        )

    def _prompts(self, plan: Plan) -> int:
        """Prompts of the evaluation; 0 where there is none, or where nothing is installed that could count them."""
        evaluate = plan.recipe.evaluate
        if evaluate is None or plan.prompts is None:
            return 0
        known = PROMPT_SETS.get(evaluate.prompts.id)
        if known is not None:
            return known.prompts
        folder = hub.fetch(plan.prompts)
        if folder.suffix == ".jsonl":
            with folder.open("rb") as lines:
                return sum(bool(line.strip()) for line in lines)
        if self._missing:
            return 0
        from inspo_hub.pairs import load_rows

        prompts = evaluate.prompts
        return len(
            load_rows(PairSource(id=prompts.id, local_path=str(folder), config=prompts.config, split=prompts.split))
        )
