"""Everything that is wrong with a recipe is told at once, with line, key, what was expected and how to fix it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import get_args

import pytest

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import RecipeError
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.pairs import DEFAULT_TURN_TEXT
from inspo_hub.recipe import Problem, Recipe, RecipeProblems, load_recipe, parse_recipe
from inspo_hub.recipe.elsewhere import KNOWN_ELSEWHERE
from inspo_hub.recipe.keys import all_keys
from inspo_hub.recipe.running import Optimizer

SMALLEST = """\
version: 1
name: tiny
model: {id: owner/model}
data:
  train: [{id: owner/pairs}]
train: {lr: 5e-7}
"""


def problems_of(text: str, overrides: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    with pytest.raises(RecipeProblems) as caught:
        parse_recipe(text, overrides, source="r.yaml")
    return caught.value.problems


def only_problem(text: str, overrides: tuple[str, ...] = ()) -> Problem:
    (problem,) = problems_of(text, overrides)
    return problem


def test_the_smallest_recipe_gets_the_documented_defaults() -> None:
    recipe = parse_recipe(SMALLEST)
    assert (recipe.objective.name, recipe.conditioning.name, recipe.seed) == ("dpo", "symmetric", 0)
    assert recipe.reference.context == "plain"
    assert recipe.train.pairs_per_step == 128
    assert list(recipe.variant_recipes()) == ["tiny"]


def test_one_problem_is_one_message_with_where_what_expected_and_fix() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SMALLEST.replace("lr: 5e-7", "lr: 5e-7, lr_schedule: cosin"), source="r.yaml")
    assert str(caught.value) == (
        "r.yaml:6: train.lr_schedule: 'cosin'\n"
        "  expected: one of 'cosine', 'linear' or 'constant'\n"
        "  fix: did you mean 'cosine'?"
    )
    assert caught.value.exit_code == 2


def test_all_problems_of_a_file_are_listed_in_the_order_of_its_lines() -> None:
    text = textwrap.dedent("""\
        version: 2
        name: has blanks
        sed: 3
        model:
          id: owner/model
          torch_dtype: bf16
        data:
          train:
            - id: owner/pairs
              wieght: 0.5
              columns: {promt: question}
            - {}
          max_length: 12.7
          heldout: no
        objective: {name: dpo, beta: true, gamma: 2}
        conditioning: symetric
        train:
          learning_rate: 5e-7
          epochs: yes
          max_steps: 1e3
        evaluate:
          judge: {python: nothing}
    """)
    problems = problems_of(text)
    assert [(problem.origin, problem.path) for problem in problems] == [
        ("r.yaml:1", "version"),
        ("r.yaml:2", "name"),
        ("r.yaml:3", "sed"),
        ("r.yaml:6", "model.torch_dtype"),
        ("r.yaml:10", "data.train.0.wieght"),
        ("r.yaml:11", "data.train.0.columns.promt"),
        ("r.yaml:12", "data.train.1.id"),
        ("r.yaml:13", "data.max_length"),
        ("r.yaml:14", "data.heldout"),
        ("r.yaml:15", "objective.beta"),
        ("r.yaml:15", "objective.gamma"),
        ("r.yaml:16", "conditioning"),
        ("r.yaml:17", "train.lr"),
        ("r.yaml:18", "train.learning_rate"),
        ("r.yaml:19", "train.epochs"),
        ("r.yaml:20", "train.max_steps"),
        ("r.yaml:21", "evaluate.prompts"),
        ("r.yaml:22", "evaluate.judge.python"),
    ]
    fixes = {problem.path: problem.fix for problem in problems}
    assert fixes["sed"] == "did you mean seed?"
    assert fixes["model.torch_dtype"] == "did you mean model.compute_dtype?"
    assert fixes["data.train.0.wieght"] == "did you mean data.train.0.weight?"
    assert fixes["data.train.0.columns.promt"] == "did you mean prompt?"
    assert fixes["objective.gamma"] == "did you mean objective.gamma of simpo?"
    assert fixes["conditioning"] == "did you mean 'symmetric'?"
    assert fixes["train.learning_rate"] == "did you mean train.lr?"
    assert fixes["train.max_steps"] == "write 1000"


def test_the_message_counts_and_the_json_lists_them() -> None:
    with pytest.raises(RecipeProblems) as caught:
        parse_recipe(SMALLEST + "sed: 1\nnme: x\n", source="r.yaml")
    assert str(caught.value).startswith("r.yaml: 2 problems\nr.yaml:7: sed: unknown key 'sed'\n")
    facts = caught.value.to_dict()
    assert facts["exit_code"] == 2
    assert [problem["path"] for problem in facts["problems"]] == ["sed", "nme"]


@pytest.mark.parametrize(
    ("line", "path", "what", "expected"),
    [
        ("seed: true", "seed", "true", "an integer"),
        ("seed: 12.7", "seed", "12.7", "an integer"),
        ("seed: '1'", "seed", "'1'", "an integer"),
        ("seed: -1", "seed", "-1", "greater than or equal to 0"),
        ("seed:", "seed", "nothing (null)", "an integer"),
        ("description: 3", "description", "3", "a text"),
        ("objective: {name: dpo, beta: '0.1'}", "objective.beta", "'0.1'", "a number"),
        ("objective: {name: dpo, beta: .nan}", "objective.beta", "nan", "a finite number"),
        ("objective: {name: dpo, beta: .inf}", "objective.beta", "inf", "a finite number"),
        ("objective: {name: dpo, beta: 0}", "objective.beta", "0", "greater than 0"),
        ("objective: {beta: 0.1}", "objective", "{'beta': 0.1}", "the name of an objective"),
        ("objective: [dpo]", "objective", "['dpo']", "the name of an objective"),
        ("conditioning: true", "conditioning", "true", "the name of a conditioning"),
        ("reference: initial", "reference", "'initial'", "a mapping"),
        ("alternative: []", "alternative", "[]", "a mapping"),
        ("variants: [dpo]", "variants", "['dpo']", "a mapping"),
        ("variants: {dpo: none}", "variants.dpo", "'none'", "a mapping"),
        ("variants: {dpo: {objective: {beta: -1}}}", "variants.dpo.objective.beta", "-1", "greater than 0"),
        ("variants: {dpo: {trian: {lr: 1}}}", "variants.dpo.trian", "unknown key 'trian'", ""),
    ],
)
def test_values_are_never_converted(line: str, path: str, what: str, expected: str) -> None:
    problem = only_problem(f"{SMALLEST}{line}\n")
    assert (problem.origin, problem.path, problem.what) == ("r.yaml:7", path, what)
    assert problem.expected.startswith(expected)


@pytest.mark.parametrize("key", ["version", "name", "model", "data", "train"])
def test_required_keys(key: str) -> None:
    problem = only_problem(re.sub(rf"^{key}:.*\n(  .*\n)*", "", SMALLEST, flags=re.MULTILINE))
    assert (problem.path, problem.what) == (key, "is missing")
    assert problem.expected


def test_a_recipe_must_be_a_mapping() -> None:
    assert only_problem("- version: 1\n").what == "not a mapping"


STOPPED = "alternative: {gradient: stopped}"


def judge(section: str) -> str:
    """An evaluation with this judge."""
    return f"evaluate: {{prompts: {{id: a/b}}, judge: {section}}}"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("conditioning: one_sided", "conditioning", "needs `reference.context: conditioned`"),
        ("objective: simpo\nconditioning: one_sided", "conditioning", "needs an objective that uses a reference"),
        (f"{STOPPED}\nconditioning: averaged", "alternative.gradient", "'averaged' trains responses without their"),
        (f"{STOPPED}\nconditioning: none", "alternative.gradient", "'none' trains responses without their"),
        (f"{STOPPED}\nobjective: {{name: dpo, nll_weight: 0.1}}", "alternative.gradient", "NLL term of 'dpo'"),
        (f"{STOPPED}\nobjective: orpo", "alternative.gradient", "NLL term of 'orpo'"),
        (
            "variants: {a: {alternative: {gradient: stopped}, conditioning: none}}",
            "variants.a.alternative.gradient",
            "'none' trains",
        ),
        ("reference: {source: model}", "reference", "names no model"),
        ("reference: {id: a/b}", "reference.id", "would be ignored"),
        ("reference: {revision: main}", "reference.revision", "would be ignored"),
        ("reference: {source: model, id: /models/x, revision: main}", "reference.revision", "has no revisions"),
        (
            "evaluate: {prompts: {id: a/b}, judge: {python: 'a:b'}, temperature: 0, samples_per_prompt: 2}",
            "evaluate.samples_per_prompt",
            "2 equal answers",
        ),
        (judge("{}"), "evaluate.judge", "names no judge"),
        (judge("{python: 'a:b', model: {id: x/y}}"), "evaluate.judge", "names python and model"),
        (judge("{endpoint: {model: m, base_url: 'http://h', provider: p}}"), "evaluate.judge.endpoint.provider", "'p'"),
        (judge("{endpoint: {model: m, max_usd: 3}}"), "evaluate.judge.endpoint.max_usd", "without prices"),
        (judge("{python: 'a:b', order: seeded}"), "evaluate.judge.order", "scores one answer at a time"),
        (judge("{model: {id: x/y}, verdict: arena_hard}"), "evaluate.judge.verdict", "needs a judge that writes"),
        (judge("{model: {id: /x, revision: main}}"), "evaluate.judge.model.revision", "has no revisions"),
        (judge("{python: 'a:b'}, against: baseline"), "evaluate.against", "comes with no answers to compete with"),
        ("variants: {a: {seed: 1}}", "variants.a.seed", "twins share the seed"),
        ("variants: {a: {data: {max_length: 9}}}", "variants.a.data", "trained on the same pairs"),
        ("variants: {a: {variants: {}}}", "variants.a.variants", "do not nest"),
        ("variants: {a: {extends: b.yaml}}", "variants.a.extends", "merged over the recipe that holds it"),
        ("variants: {a b: {}}", "variants.a b", "cannot name a folder"),
        (
            "variants: {a: {}, b: {model: {tokenizer: x/y}}}",
            "variants.b.model.tokenizer",
            "another variant has 'owner/model'",
        ),
        ("variants: {a: {}, b: {model: {id: x/y}}}", "variants.b.model", "'x/y', where another variant has"),
        ("variants: {a: {conditioning: one_sided}}", "variants.a.conditioning", "needs `reference.context"),
    ],
)
def test_values_that_do_not_go_together(text: str, path: str, message: str) -> None:
    matching = [problem for problem in problems_of(f"{SMALLEST}{text}\n") if message in problem.what]
    assert [problem.path for problem in matching] == [path]
    assert matching[0].origin.startswith("r.yaml:")


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("train: [{id: owner/pairs}]", "train: []", "data.train"),
        ("train: [{id: owner/pairs}]", "train: [{id: owner/pairs}]\n  heldout: []", "data.heldout"),
        ("{id: owner/pairs}", "{id: a/b, weight: 1}, {id: c/d}", "data.train.0.weight"),
        ("{id: owner/pairs}", "{id: /data/x.jsonl, revision: main}", "data.train.0.revision"),
        ("{id: owner/model}", "{id: /models/x, revision: main}", "model.revision"),
        ("{id: owner/model}", "{id: a/b, tokenizer: /models/x, tokenizer_revision: main}", "model.tokenizer_revision"),
        ("{lr: 5e-7}", "{lr: 5e-7, eval_every: 5}", "train.eval_every"),
        (
            "train: [{id: owner/pairs}]",
            "train: [{id: owner/pairs}]\n  heldout: {fraction: 1.5}",
            "data.heldout.fraction",
        ),
        (
            "train: [{id: owner/pairs}]",
            "train: [{id: owner/pairs}]\n  heldout: {fraction: 0.1, n: 3}",
            "data.heldout.n",
        ),
    ],
)
def test_data_that_does_not_go_together(old: str, new: str, path: str) -> None:
    assert only_problem(SMALLEST.replace(old, new)).path == path


def test_one_sided_with_a_conditioned_reference_is_allowed_and_rejected_only_is_allowed_with_a_caution() -> None:
    allowed = parse_recipe(SMALLEST + "conditioning: one_sided\nreference: {context: conditioned}\n")
    assert allowed.cautions == ()
    careful = parse_recipe(SMALLEST + "variants: {a: {}, b: {conditioning: rejected_only}}\n")
    assert len(careful.cautions) == 1
    assert "rejected_only" in careful.cautions[0]


def test_overrides_are_named_where_they_are_wrong() -> None:
    problem = only_problem(SMALLEST, ("train.lr=fast",))
    assert (problem.origin, problem.path, problem.expected) == ("--set train.lr=fast", "train.lr", "a number")
    problem = only_problem(SMALLEST, ("trian.lr=1e-6",))
    assert (problem.origin, problem.fix) == ("--set trian.lr=1e-6", "did you mean train?")
    problem = only_problem(SMALLEST, ("train.lr",))
    assert problem.what == "not an override"
    problem = only_problem(SMALLEST, ("data.train.1.limit=3",))
    assert (problem.what, problem.expected) == ("'1' is no position of the list data.train", "0 to 0")


def test_several_overrides_and_the_file_are_told_together() -> None:
    found = problems_of(SMALLEST + "sed: 1\n", ("train.lr=x", "nonsense", "train.epochs=[1"))
    assert {problem.origin for problem in found} == {
        "r.yaml:7",
        "--set train.lr=x",
        "--set nonsense",
        "--set train.epochs=[1",
    }


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("max_prompt_length: 5", "inspo-hub schema"),
        ("per_device_train_batch_size: 4", "did you mean train.pairs_per_step?"),
        ("beta: 0.1", "did you mean objective.beta"),
        ("Name: x", "did you mean name?"),
        ("max_length: 5", "did you mean data.max_length?"),
        ("zzz: 1", "delete it"),
    ],
)
def test_the_nearest_key(line: str, fix: str) -> None:
    assert fix in only_problem(f"{SMALLEST}{line}\n").fix


def test_names_of_other_trainers_lead_to_keys_that_exist() -> None:
    existing = {key.path for key in all_keys()}
    assert set(KNOWN_ELSEWHERE.values()) <= existing
    assert not existing & set(KNOWN_ELSEWHERE), "a key of ours needs no translation"


def test_every_key_says_what_it_is() -> None:
    undescribed = [key.path for key in all_keys() if not key.description and key.leaf != "name"]
    assert undescribed == []


def test_every_objective_and_conditioning_is_a_recipe_key() -> None:
    for name in OBJECTIVES:
        assert parse_recipe(f"{SMALLEST}objective: {name}\n").objective == OBJECTIVES[name](name=name)
    for name in CONDITIONINGS:
        text = f"{SMALLEST}conditioning: {name}\nreference: {{context: conditioned}}\n"
        assert parse_recipe(text).conditioning == CONDITIONINGS[name](name=name)


def test_optimizers_are_known_to_transformers() -> None:
    from transformers.training_args import OptimizerNames

    assert set(get_args(Optimizer)) <= {name.value for name in OptimizerNames}


def test_the_default_words_between_two_answers_are_those_of_the_pairs_room() -> None:
    assert parse_recipe(SMALLEST).alternative.turn_text == DEFAULT_TURN_TEXT


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.yaml: cannot be read: No such file"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)
    binary = tmp_path / "model.safetensors"
    binary.write_bytes(b"\xff\xfe\x00\x80" * 10)
    with pytest.raises(RecipeError, match="not a text"):
        load_recipe(binary)
    with binary.open("wb") as stream:
        stream.truncate(10_000_000)
    with pytest.raises(RecipeError, match="too large for a recipe"):
        load_recipe(binary)


def test_a_recipe_cannot_be_changed() -> None:
    recipe = parse_recipe(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]
    assert isinstance(recipe, Recipe)
