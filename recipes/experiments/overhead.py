"""What conditioning costs: tokens and processor time of a step, side by side in one process, and of answering."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from estimates import mean_and_error, table
from series import HERE, Series, World

from inspo_hub.recipe import Recipe, load_recipe
from inspo_hub.workflow import run_recipe


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG: none). One world per seed; a variant's cost is compared within it."""
    found = [measured(series, World(seed=seed)) for seed in seeds]
    rows = []
    for name in found[0]["variants"]:
        each = [one["variants"][name] for one in found]
        ratios = [one["variants"][name]["seconds"] / one["variants"]["dpo"]["seconds"] for one in found]
        answering = [one["latency"][name] for one in found]
        rows.append(
            [
                name,
                mean_and_error([one["tokens"] for one in each], ".0f"),
                mean_and_error([one["seconds"] for one in each], ".3f"),
                mean_and_error(ratios),
                mean_and_error([one["token_ratio"]["median"] for one in answering]),
                "; ".join(dict.fromkeys(one["verdict"] for one in answering)),
                "none" if not any(one["differences"] for one in answering) else "some",
            ]
        )
    header = ["variant", "tokens of a step", "processor seconds of a step", "÷ DPO", "time of a token ÷ base", ""]
    return table([*header, "differences of the checkpoint's format"], rows), {}


def measured(series: Series, world: World) -> dict[str, Any]:
    """Everything of one world; kept on disk."""
    file = series.output / "overhead" / f"{world.name}.json"
    if not file.is_file():
        outcome = series.outcome("overhead", world)
        folder = series.output / "overhead" / world.name
        result = {
            "variants": {name: _cost(series, world, name, outcome.systems[name].folder) for name in _variants()},
            "latency": json.loads((folder / "report" / "latency.json").read_text(encoding="utf-8"))["variants"],
        }
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _variants() -> list[str]:
    return list(load_recipe(HERE / "overhead.yaml").variant_recipes())


def _cost(series: Series, world: World, name: str, trained: Path) -> dict[str, Any]:
    """The difference of a short and a longer run's times is that of the steps, without what starts a run."""
    few, many = series.size.timed_steps
    seconds = [_processor_seconds(series, world, name, steps) for steps in (few, many)]
    summary = json.loads((trained / "trained.json").read_text(encoding="utf-8"))
    return {"tokens": summary["tokens_per_step"], "seconds": (seconds[1] - seconds[0]) / (many - few)}


def _processor_seconds(series: Series, world: World, name: str, steps: int) -> float:
    """Of one variant trained for so many steps on the world's pairs, twice round where they are few; not kept."""
    settings = [*series.overrides(world), f"train.max_steps={steps}", "train.epochs=100", "evaluate=null"]
    recipe: Recipe = load_recipe(HERE / "overhead.yaml", settings).variant_recipes()[name]
    started = time.process_time()
    run_recipe(recipe, series.output / "overhead" / f"{world.name}-steps" / f"{name}-{steps}", resume="none")
    return time.process_time() - started
