"""A plan against what real runs leave behind: steps, pairs, tokens, micro-batches, passes and checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from inspo_hub.plan.estimate import estimate
from inspo_hub.plan.hardware import price_list
from inspo_hub.plan.results import Estimate
from inspo_hub.recipe import load_recipe
from inspo_hub.survey import survey
from tests.training.conftest import Project, make_project, make_rows, write_rows

TWINS = """\
version: 1
name: twins
model: {id: base}
data:
  train: [{id: train.jsonl}]
  heldout: [{id: heldout.jsonl}]
  max_length: 120
alternative: {turn_text: again}
objective: {name: dpo, beta: 0.5}
train: {lr: 3e-3, pairs_per_step: 6, epochs: 1.5, log_every: 2, eval_every: 4, save_every: 3,
        tokens_per_microbatch: 500, keep_checkpoints: 9}
variants:
  dpo: {conditioning: none}
  both: {conditioning: averaged}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("planned"), recipe=TWINS)
    odd = [{"prompt": "p", "chosen": "same", "rejected": "same"}, {"prompt": "p", "chosen": "", "rejected": "b"}]
    write_rows(made.folder / "train.jsonl", [*make_rows(45), *odd])
    return made


@pytest.fixture
def planned(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Estimate]:
    import datasets

    # A run in the same caches has tokenised these rows already; the plan finds its own.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", project.folder / "planned")

    def plan(*overrides: str, **options: Any) -> Estimate:
        return estimate(survey(load_recipe(project.recipe, overrides)), price_list(None), **options)

    return plan


@pytest.mark.slow
def test_a_run_does_what_its_plan_says(project: Project, planned: Callable[..., Estimate]) -> None:
    plan = planned()
    done = project.run()
    for variant in plan.variants:
        output = project.folder / "out" / variant.name
        trained = json.loads((output / "trained.json").read_text())
        told = (variant.steps, variant.pairs, variant.tokens, variant.tokens_per_step, variant.layout)
        names = ("steps", "pairs", "tokens", "tokens_per_step", "layout")
        assert told == tuple(trained[name] for name in names)
        records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert sum(record["split"] == "heldout" for record in records) == variant.evaluations
        assert len(list((output / "checkpoints").glob("checkpoint-*"))) == variant.checkpoints
    # Every row of each set was scored once, before the first variant; the second found all of them in the cache.
    passes = [
        tuple(map(int, found)) for found in re.findall(r"reference: (\d+) rows, (\d+) of them cached", done.stderr)
    ]
    scored = [rows - cached for rows, cached in passes]
    assert (sum(scored), len(plan.passes)) == (sum(one.pairs for one in plan.passes), 1)
    report = json.loads((project.folder / "out" / "dpo" / "report" / "data.json").read_text())
    assert plan.data.train_pairs == report["train_pairs"]
    assert plan.data.sources[0].invalid == {"identical": 1, "empty_chosen": 1}
    assert plan.data.dropped == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_micro_batches_are_those_that_the_trainer_would_run(
    project: Project, planned: Callable[..., Estimate], processes: int
) -> None:
    from inspo_hub.dealing import step_indices
    from inspo_hub.models import load_tokenizer
    from inspo_hub.pairs import PairSource, prepare_pairs, separator_ids
    from inspo_hub.training.packer import Packer, laid_out_scores

    tokenizer = load_tokenizer(project.folder / "base")
    separator = separator_ids(tokenizer, "turn", "again")
    prepared = prepare_pairs(
        [PairSource(id=str(project.folder / "train.jsonl"))],
        tokenizer,
        seed=0,
        max_length=120,
        conditioned=True,
        separator=separator,
    )
    plan = planned(gpus=processes)
    for name, recipe in load_recipe(project.recipe).variant_recipes().items():
        packer = Packer(layout="tree", separator=separator, max_alternative_tokens=None, tokens_per_microbatch=500)
        steps = step_indices(len(prepared.train), 6, 1.5, recipe.seed)
        scores = laid_out_scores(recipe)
        dataset = packer.steps(prepared.train, steps, {}, scores, processes=processes, process=0)
        items = [dataset[step] for step in range(len(dataset))]
        (variant,) = (one for one in plan.variants if one.name == name)
        assert variant.micro_batches == sum(len(share.micro_batches) for share in items)
        if processes == 1:
            assert variant.tokens == sum(each.batch.tokens for share in items for each in share.micro_batches)
            largest = max(each.batch.tokens for share in items for each in share.micro_batches)
            assert largest <= variant.largest_micro_batch <= max(largest, 500)


def test_counts_know_what_a_recipe_drops(planned: Callable[..., Estimate]) -> None:
    kept = planned("data.on_overlong=drop", "data.max_length=90")
    cut = planned("data.max_length=90")
    over = {one.name: one.overlong for one in cut.conditionings}
    assert 0 < over["none"] < over["symmetric"] == over["averaged"]
    assert kept.data.train_pairs == cut.data.train_pairs - over["symmetric"]
    assert {one.name: one.taken["alternatives"] for one in cut.conditionings}["none"] == 0
    assert max(one.longest_path["max"] for one in cut.conditionings) <= 90


def test_a_sample_of_many_rows_says_that_it_is_one(project: Project, planned: Callable[..., Estimate]) -> None:
    path = project.folder / "many.jsonl"
    write_rows(path, make_rows(600, seed=3))
    whole, part = (
        estimate(
            survey(load_recipe(project.recipe, [f"data.train=[{{id: {path}}}]"]), sample_rows=rows), price_list(None)
        )
        for rows in (2000, 200)
    )
    assert (whole.data.exact, part.data.exact) == (True, False)
    assert (part.data.train_pairs, part.variants[0].steps) == (whole.data.train_pairs, whole.variants[0].steps)
    for one, other in zip(whole.variants, part.variants, strict=True):
        assert other.tokens == pytest.approx(one.tokens, rel=0.06)
        assert other.micro_batches == pytest.approx(one.micro_batches, rel=0.1)
    assert part.data.method == "estimated from 205 tokenised rows"


def test_a_held_out_fraction_is_taken_off(project: Project, planned: Callable[..., Estimate]) -> None:
    plan = planned("data.heldout={fraction: 0.2}")
    assert plan.data.train_pairs + plan.data.heldout_pairs == 45
    assert plan.data.dropped == 2
