"""`sweep:`: every combination is a variant; what is wrong with one is told at its line, once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from inspo_hub.recipe import Problem, RecipeProblems, load_recipe, parse_recipe
from inspo_hub.recipe.export import recipe_schema
from inspo_hub.recipe.reading import read_tree
from inspo_hub.recipe.sweeping import MAX_VARIANTS

BASE = """\
version: 1
name: tiny
model: {id: owner/model}
data: {train: [{id: owner/pairs}]}
train: {lr: 5e-7}
"""
GRID = """\
sweep:
  objective.beta: [0.1, 0.3]
  data.max_length: [1024, 2048]
  train.lr: [5e-7, 1e-6]
  conditioning: [none, {name: averaged, weight: 0.25}]
  objective: [dpo, ipo]
  seed: [0, 1]
"""


def only_problem(text: str, overrides: tuple[str, ...] = ()) -> Problem:
    with pytest.raises(RecipeProblems) as caught:
        parse_recipe(BASE + text, overrides, source="r.yaml")
    (problem,) = caught.value.problems
    return problem


def test_every_combination_is_a_variant_that_its_name_tells() -> None:
    found = parse_recipe(BASE + GRID).variant_recipes()
    names = ["dpo", "ipo"]
    expected = [
        (
            f"beta{beta}_max-length{length}_lr{lr}_{given}_{objective}_seed{seed}",
            beta,
            length,
            float(lr),
            objective,
            seed,
        )
        for beta, length, lr, given, objective, seed in itertools.product(
            (0.1, 0.3), (1024, 2048), ("5e-7", "1e-6"), ("none", "averaged-weight0.25"), names, (0, 1)
        )
    ]
    assert [
        (name, one.objective.beta, one.data.max_length, one.train.lr, one.objective.name, one.seed)  # type: ignore[attr-defined]
        for name, one in found.items()
    ] == expected
    assert {name: one.name for name, one in found.items()} == {name: f"tiny-{name}" for name in found}
    assert all(one.sweep == {} and not one.has_variants for one in found.values())


def test_with_variants_every_combination_of_each() -> None:
    text = "variants: {dpo: {conditioning: none}, inspo: }\nsweep: {objective.beta: [0.1, 0.3]}\n"
    found = parse_recipe(BASE + text).variant_recipes()
    assert {name: (one.conditioning.name, one.objective.beta) for name, one in found.items()} == {  # type: ignore[attr-defined]
        "dpo_beta0.1": ("none", 0.1),
        "dpo_beta0.3": ("none", 0.3),
        "inspo_beta0.1": ("symmetric", 0.1),
        "inspo_beta0.3": ("symmetric", 0.3),
    }


def test_a_swept_objective_comes_before_its_settings() -> None:
    text = "objective: {name: simpo, gamma: 3}\nsweep: {objective.beta: [0.5], objective: [dpo, simpo]}\n"
    dpo, simpo = parse_recipe(BASE + text).variant_recipes().values()
    assert (dpo.objective.name, dpo.objective.beta) == ("dpo", 0.5)  # type: ignore[attr-defined]
    assert (simpo.objective.beta, simpo.objective.gamma) == (0.5, 3)  # type: ignore[attr-defined]


def test_nested_and_dotted_are_the_same_and_overrides_replace_lists() -> None:
    dotted = parse_recipe(BASE + "sweep: {objective.beta: [0.1], train.lr: [1e-6]}\n")
    nested = parse_recipe(BASE + "sweep: {objective: {beta: [0.1]}, train: {lr: [1e-6]}}\n")
    assert dotted == nested
    longer = parse_recipe(
        BASE + "sweep: {objective.beta: [0.1]}\n", ["sweep.objective.beta=[0.2, 0.4]", "sweep.seed=[3]"]
    )
    assert list(longer.variant_recipes()) == ["beta0.2_seed3", "beta0.4_seed3"]


def test_an_extended_files_sweep_is_taken_away_with_null(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE + "sweep: {seed: [0, 1]}\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nsweep:\n")
    assert not load_recipe(tmp_path / "child.yaml").has_variants


def test_written_and_read_again_it_is_the_same_sweep() -> None:
    recipe = parse_recipe(BASE + GRID)
    assert parse_recipe(recipe.to_yaml()).sha256() == recipe.sha256()


def test_paths_of_a_sweep_start_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "r.yaml").write_text(
        BASE + "reference: {source: model, id: a/b}\nsweep: {reference.id: [./other, c/d]}\n"
    )
    ids = [one.reference.id for one in load_recipe(tmp_path / "r.yaml").variant_recipes().values()]
    assert ids == [str(tmp_path / "other"), "c/d"]


@pytest.mark.parametrize(
    ("text", "where", "what", "more"),
    [
        ("sweep: {objective.betta: [1, 2]}", "sweep.objective.betta", "unknown key 'betta'", "objective.beta"),
        ("sweep:\n  objective.beta:\n    - 0.1\n    - -1", "sweep.objective.beta", "-1", "greater than 0"),
        ("sweep: {objective.beta: 0.1}", "sweep.objective.beta", "0.1", "a list"),
        ("sweep: {objective.beta: []}", "sweep.objective.beta", "[]", "at least one value"),
        ("sweep: 3", "sweep", "3", "a mapping"),
        ("sweep: {model.id: [a/b, c/d]}", "sweep.model.id", "a sweep cannot change model.id", "data.max_length"),
        ("sweep: {seed: [0, 1, 0]}", "sweep.seed.2", "0 is listed twice", "once"),
        ("sweep: {conditioning: [none, symetric]}", "sweep.conditioning", "'symetric'", "did you mean 'symmetric'"),
        ("sweep: {conditioning: [none, one_sided]}", "sweep.conditioning", "needs `reference.context", "conditioned"),
        ("sweep: {alternative.turn_text: ['a b', a-b]}", "sweep", "two combinations would be called", "letters"),
        (f"sweep: {{alternative.turn_text: [{'x' * 99}]}}", "sweep", "113 characters", "at most 96"),
        ("sweep: {seed: [0]}\nvariants: {a: {sweep: {}}}", "variants.a.sweep", "runs over all variants", "extends"),
        (
            "variants: {a: {conditioning: none}}\nsweep: {conditioning: [none]}",
            "variants.a",
            "has its own conditioning, which the sweep would undo",
            "delete it here",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once_with_its_line(text: str, where: str, what: str, more: str) -> None:
    problem = only_problem(text + "\n")
    line = 9 if "- -1" in text else 7 if text.startswith("variants") and where == "sweep" else None
    assert problem.path == where
    assert problem.origin == f"r.yaml:{line}" if line else problem.origin.startswith("r.yaml:")
    assert what in problem.what
    assert more in problem.expected + problem.fix


def test_too_many_are_refused_before_they_are_made() -> None:
    values = list(range(1000))
    problem = only_problem(f"sweep: {{seed: {values}, train.epochs: {[v + 1 for v in values]}}}\n")
    assert (problem.what, problem.expected) == ("1,000,000 trainings", f"at most {MAX_VARIANTS}")


def test_an_override_that_the_sweep_would_undo_is_refused() -> None:
    text = "objective: {name: dpo}\nsweep: {objective.beta: [0.1]}\n"
    for override in ("objective.beta=0.3", "objective={name: dpo, beta: 0.3}"):
        problem = only_problem(text, (override,))
        assert "the sweep has its own objective.beta" in problem.what
        assert problem.fix == "--set 'sweep.objective.beta=[…]'"
    assert parse_recipe(BASE + text, ["objective.label_smoothing=0.1"]).has_variants


@pytest.mark.parametrize(
    ("text", "fine"),
    [(GRID, True), ("sweep:", True), ("sweep: {seed: 3}", False), ("sweep: {seed: []}", False), ("sweep: 3", False)],
)
def test_the_schema_says_the_same(text: str, fine: bool) -> None:
    assert Draft202012Validator(recipe_schema()).is_valid(read_tree(f"{BASE}{text}\n", "r.yaml").plain()) is fine
