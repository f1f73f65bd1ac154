"""What the planner expects of the recipes in recipes/inspo, from published shapes and sizes: nothing is downloaded.

`python -m tests.plan.inspo_costs` prints it for each; `--write` puts it into the recipe's `# Expected` comment.
`inspo-hub plan recipes/inspo/NAME.yaml` asks the Hub for the real shapes, lengths and prices instead.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from inspo_hub.cost import ModelShape
from inspo_hub.plan.estimate import estimate
from inspo_hub.plan.facts import DataFacts, PairRow
from inspo_hub.plan.hardware import price_list
from inspo_hub.plan.results import Estimate
from inspo_hub.plan.variants import Variant
from inspo_hub.recipe import Recipe, load_recipe
from inspo_hub.recipe.shipped import shipped_folder, shipped_recipes
from tests.bench.lengths import LAWS
from tests.plan.facts import data_of, model_of

ROWS, HELDOUT, PROMPTS = 61_135, 2_000, 805
"""Of UltraFeedback's binarized preferences and of AlpacaEval 2; the on-policy sets are taken to be as large."""
FLAVOR = "h200x8"
SAMPLE, SEPARATOR = 512, 20
_LLAMA = ModelShape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14_336, vocab=128_256, head_dim=128)
_MISTRAL = replace(_LLAMA, vocab=32_000)
_GEMMA = ModelShape(hidden=3584, layers=42, heads=16, kv_heads=8, intermediate=14_336, vocab=256_000, head_dim=256)
SHAPES = {
    "alignment-handbook/zephyr-7b-sft-full": _MISTRAL,
    "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL,
    "princeton-nlp/Llama-3-Base-8B-SFT": _LLAMA,
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA,
    "google/gemma-2-9b-it": _GEMMA,
}


@dataclass(frozen=True)
class Cost:
    """One recipe's run on eight H200, as predicted."""

    trainings: int
    hours: float
    usd: float

    def line(self) -> str:
        return (
            f"# Expected: {self.trainings} trainings, {self.hours:.0f} hours and ${self.usd:,.0f} on {FLAVOR}, "
            "without the judge. A prediction of the planner from\n#   published shapes and sizes (python -m "
            "tests.plan.inspo_costs), never measured; `inspo-hub plan` asks for the real ones."
        )


def names() -> list[str]:
    return [name for name in shipped_recipes() if name.startswith("inspo/")]


def file_of(name: str) -> Path:
    return shipped_folder() / f"{name}.yaml"


@cache
def _data(pairs: int, max_length: int, prompts: int) -> DataFacts:
    """UltraFeedback's lengths, drawn; alternatives are cut to the room that is left, as the run cuts them."""
    law = LAWS["ultrafeedback"]
    drawn = law.draw(np.random.default_rng(0), SAMPLE, max_length)
    rows = []
    for prompt, chosen, rejected in drawn.tolist():
        room = max_length - prompt - SEPARATOR - max(chosen, rejected)
        rows.append(PairRow(prompt, chosen, rejected, max_alternative=max(0, min(max(chosen, rejected), room))))
    return replace(data_of(rows, pairs=pairs, separator=SEPARATOR), heldout_pairs=HELDOUT, prompts=prompts)


def plan_of(recipe: Recipe) -> Estimate:
    found = []
    for name, variant in recipe.variant_recipes().items():
        limit = variant.data.train[0].limit
        facts = _data(min(ROWS, limit or ROWS), variant.data.max_length, PROMPTS)
        model = model_of(SHAPES[variant.model.id], tied=variant.model.id.startswith("google"), name=variant.model.id)
        found.append(Variant.of(name, variant, model, facts))
    return estimate(found, price_list(None), flavor=FLAVOR, gpus=8)


def cost_of(name: str) -> Cost:
    recipe = load_recipe(file_of(name))
    chosen = plan_of(recipe).chosen
    assert chosen is not None
    assert chosen.hours is not None
    assert chosen.usd is not None
    return Cost(len(recipe.variant_recipes()), chosen.hours.total, chosen.usd)


def main() -> None:
    for name in names():
        line = cost_of(name).line()
        print(f"{name}\n  {line}")
        if "--write" in sys.argv:
            file = file_of(name)
            text = re.sub(
                r"^# (COST|Expected: .*\n#   .*)$", line, file.read_text(encoding="utf-8"), count=1, flags=re.M
            )
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
