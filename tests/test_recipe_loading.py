"""Inheritance, overrides, variants and paths: what a recipe is once it is loaded, and that its hash identifies it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspo_hub.errors import RecipeError
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.recipe import HeldoutFraction, Recipe, RecipeProblems, is_path, load_recipe, parse_recipe
from inspo_hub.recipe.reading import read_tree

BASE = """\
version: 1
name: base
model: {id: owner/model}
data:
  train: [{id: owner/pairs, limit: 5}, {id: owner/more}]
  heldout: {fraction: 0.1}
objective: {name: dpo, beta: 0.2, label_smoothing: 0.1}
train: {lr: 5e-7, epochs: 2}
"""
TWINS = BASE + "variants:\n  dpo: {conditioning: none}\n  inspo: {conditioning: symmetric, objective: {beta: 0.5}}\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- extends


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", BASE)
    child = write(
        tmp_path / "sub" / "child.yaml",
        "extends: ../base.yaml\nname: child\ndata: {train: [{id: a/b}]}\ntrain: {lr: 1e-6}\n",
    )
    recipe = load_recipe(child)
    assert (recipe.name, recipe.version, recipe.model.id) == ("child", 1, "owner/model")
    assert [source.id for source in recipe.data.train] == ["a/b"]
    assert recipe.data.heldout == HeldoutFraction(fraction=0.1)
    assert (recipe.train.lr, recipe.train.epochs) == (1e-6, 2.0)


def test_extends_is_a_chain_and_the_nearest_file_wins(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", BASE)
    write(tmp_path / "b.yaml", "extends: a.yaml\nseed: 1\ntrain: {epochs: 3}\n")
    recipe = load_recipe(write(tmp_path / "c.yaml", "extends: b.yaml\nseed: 2\n"))
    assert (recipe.seed, recipe.train.epochs, recipe.train.lr) == (2, 3.0, 5e-7)


def test_problems_name_the_file_that_holds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "base.yaml", BASE.replace("epochs: 2", "epochs: no"))
    write(tmp_path / "child.yaml", "extends: base.yaml\n\nseed: x\nvariants:\n  a:\n    sed: 1\n")
    with pytest.raises(RecipeProblems) as caught:
        load_recipe("child.yaml")
    assert [(problem.origin, problem.path) for problem in caught.value.problems] == [
        ("base.yaml:8", "train.epochs"),
        ("child.yaml:3", "seed"),
        ("child.yaml:6", "variants.a.sed"),
    ]


def test_a_circle_of_extends_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: c.yaml\n")
    write(tmp_path / "c.yaml", "extends: a.yaml\n")
    with pytest.raises(RecipeError, match=r"c\.yaml:1: extends: a circle: a\.yaml -> b\.yaml -> c\.yaml -> a\.yaml"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize("value", ["[a.yaml]", "3", "{a: b}"])
def test_extends_names_one_file(tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match="names no file"):
        load_recipe(write(tmp_path / "a.yaml", f"extends: {value}\n"))


def test_extends_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"a\.yaml:1: extends: .*b\.yaml cannot be read: No such file"):
        load_recipe(write(tmp_path / "a.yaml", "extends: b.yaml\n"))


def test_a_text_without_a_folder_extends_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="names no file"):
        parse_recipe("extends: base.yaml\n")
    write(tmp_path / "base.yaml", BASE)
    assert parse_recipe("extends: base.yaml\nseed: 4\n", folder=tmp_path).seed == 4


def test_null_takes_away_what_an_extended_file_has(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", TWINS)
    recipe = load_recipe(write(tmp_path / "a.yaml", "extends: base.yaml\nvariants:\ndata: {heldout: null}\n"))
    assert recipe.variants == {}
    assert recipe.data.heldout is None


# --- objectives and conditionings in a merge


def test_another_objective_replaces_the_section_and_the_same_one_is_merged(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", BASE)

    def objective(text: str) -> object:
        return load_recipe(write(tmp_path / "child.yaml", f"extends: base.yaml\n{text}\n")).objective

    dpo = OBJECTIVES["dpo"]
    assert objective("") == dpo(name="dpo", beta=0.2, label_smoothing=0.1)
    assert objective("objective: {beta: 0.3}") == dpo(name="dpo", beta=0.3, label_smoothing=0.1)
    assert objective("objective: {name: dpo, beta: 0.3}") == dpo(name="dpo", beta=0.3, label_smoothing=0.1)
    assert objective("objective: dpo") == dpo(name="dpo", beta=0.2, label_smoothing=0.1)
    assert objective("objective: hinge") == OBJECTIVES["hinge"](name="hinge")
    assert objective("objective: {name: simpo, gamma: 0.3}") == OBJECTIVES["simpo"](name="simpo", gamma=0.3)


# --- overrides


def test_overrides_are_typed_like_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "r.yaml", TWINS)
    recipe = load_recipe(
        file,
        [
            "train.lr=1e-6",
            "train.compile=true",
            "name=no",
            "data.train.1.weight=2",
            "data.train.0={limit: 7, weight: 1}",
            "data.heldout=null",
            "evaluate={prompts: {id: a/b}, judge: {python: 'm:f'}}",
            "evaluate.limit=3",
            "variants.dpo.train.epochs=1",
        ],
    )
    assert (recipe.train.lr, recipe.train.compile, recipe.name) == (1e-6, True, "no")
    assert [(source.id, source.limit, source.weight) for source in recipe.data.train] == [
        ("owner/pairs", 7, 1.0),
        ("owner/more", None, 2.0),
    ]
    assert recipe.data.heldout is None
    assert recipe.evaluate is not None
    assert (recipe.evaluate.prompts.id, recipe.evaluate.limit) == ("a/b", 3)
    assert recipe.variant_recipes()["dpo"].train.epochs == 1.0
    assert recipe.variant_recipes()["inspo"].train.epochs == 2.0


def test_the_last_override_wins() -> None:
    assert parse_recipe(BASE, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("order", [1, -1])
def test_the_objective_is_chosen_before_its_settings(order: int) -> None:
    overrides = ["objective.gamma=0.7", "objective.name=simpo"][::order]
    assert parse_recipe(BASE, overrides).objective == OBJECTIVES["simpo"](name="simpo", gamma=0.7)
    assert parse_recipe(BASE, ["objective=hinge"]).objective == OBJECTIVES["hinge"](name="hinge")


@pytest.mark.parametrize(
    ("override", "hidden_by"),
    [
        ("conditioning=averaged", {"dpo", "inspo"}),
        ("conditioning.name=averaged", {"dpo", "inspo"}),
        ("objective.beta=0.9", {"inspo"}),
        ("objective={name: ipo, beta: 0.9}", {"inspo"}),
    ],
)
def test_an_override_that_a_variant_would_undo_is_refused(override: str, hidden_by: set[str]) -> None:
    with pytest.raises(RecipeProblems) as caught:
        parse_recipe(TWINS, [override])
    hidden = {problem.what.split("'")[1] for problem in caught.value.problems if "would win" in problem.what}
    assert hidden == hidden_by
    assert all(problem.origin == f"--set {override}" for problem in caught.value.problems)


def test_a_variant_of_another_objective_hides_every_setting_of_the_recipes_own() -> None:
    text = BASE + "variants: {a: {}, b: {objective: {name: simpo}}}\n"
    with pytest.raises(RecipeProblems, match="variant 'b' has its own objective"):
        parse_recipe(text, ["objective.label_smoothing=0.2"])


def test_overrides_that_no_variant_touches_reach_all_of_them() -> None:
    recipe = parse_recipe(TWINS, ["objective.label_smoothing=0.3", "variants.inspo.objective.beta=0.9"])
    by_name = {name: variant.objective for name, variant in recipe.variant_recipes().items()}
    dpo = OBJECTIVES["dpo"]
    assert by_name == {
        "dpo": dpo(name="dpo", beta=0.2, label_smoothing=0.3),
        "inspo": dpo(name="dpo", beta=0.9, label_smoothing=0.3),
    }


# --- variants


def test_variants_are_the_recipe_with_their_keys_merged_over_it() -> None:
    recipe = parse_recipe(TWINS)
    dpo, inspo = recipe.variant_recipes().values()
    assert (dpo.name, inspo.name) == ("base-dpo", "base-inspo")
    assert (dpo.conditioning.name, inspo.conditioning.name) == ("none", "symmetric")
    assert inspo.objective == OBJECTIVES["dpo"](name="dpo", beta=0.5, label_smoothing=0.1)
    assert dpo.data == inspo.data == recipe.data
    assert dpo.variants == {}
    rest = {"name", "conditioning", "variants"}
    assert dpo.model_dump(exclude=rest) == recipe.model_dump(exclude=rest)


def test_a_variant_may_be_empty_and_named() -> None:
    recipe = parse_recipe(BASE + "variants: {plain: , other: {name: mine, conditioning: none}}\n")
    assert [variant.name for variant in recipe.variant_recipes().values()] == ["base-plain", "mine"]


def test_variants_may_supply_what_the_recipe_leaves_to_the_defaults() -> None:
    text = BASE.replace("objective: {name: dpo, beta: 0.2, label_smoothing: 0.1}\n", "")
    recipe = parse_recipe(text + "variants: {a: {objective: {beta: 0.7}}, b: {objective: hinge}}\n")
    by_name = recipe.variant_recipes()
    assert by_name["a"].objective == OBJECTIVES["dpo"](name="dpo", beta=0.7)
    assert by_name["b"].objective == OBJECTIVES["hinge"](name="hinge")


def test_a_variant_may_change_the_model_if_the_tokenizer_stays() -> None:
    text = BASE.replace("{id: owner/model}", "{id: owner/model, tokenizer: owner/tokenizer}")
    recipe = parse_recipe(text + "variants: {a: {}, b: {model: {id: owner/other}}}\n")
    assert recipe.variant_recipes()["b"].model.id == "owner/other"


# --- paths


def test_local_paths_start_from_the_file_that_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for name in ("home/base/model", "home/base/tok", "home/child/model", "cwd/elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("base/pairs.jsonl", "base/judge.py", "child/template.jinja", "child/prompts.jsonl"):
        write(home / name, "")
    write(
        home / "base" / "base.yaml",
        BASE.replace("owner/model", "model, tokenizer: ./tok").replace("owner/pairs", "pairs.jsonl")
        + "evaluate: {prompts: {id: a/b}, judge: {python: 'judge.py:score'}}\n",
    )
    child = write(
        home / "child" / "child.yaml",
        "extends: ../base/base.yaml\nmodel: {id: ./model, chat_template: template.jinja}\n"
        "evaluate: {prompts: {id: prompts.jsonl}}\nvariants: {a: {reference: {source: model, id: ./model}}}\n",
    )
    monkeypatch.chdir(tmp_path / "cwd")
    recipe = load_recipe(child, ["variants.a.reference.id=elsewhere"])
    assert recipe.model.id == str(home / "child" / "model")
    assert recipe.model.chat_template == str(home / "child" / "template.jinja")
    assert recipe.model.tokenizer == str(home / "base" / "tok")
    assert [source.id for source in recipe.data.train] == [str(home / "base" / "pairs.jsonl"), "owner/more"]
    assert recipe.evaluate is not None
    assert recipe.evaluate.judge.python == f"{home / 'base' / 'judge.py'}:score"
    assert recipe.evaluate.prompts.id == str(home / "child" / "prompts.jsonl")
    assert recipe.variant_recipes()["a"].reference.id == str(tmp_path / "cwd" / "elsewhere")
    assert recipe.root == str(home / "child")
    assert is_path(recipe.model.id)
    assert not is_path(recipe.data.train[1].id)
    assert not is_path(None)


def test_a_hub_id_that_is_also_a_folder_is_the_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "r.yaml", BASE)
    assert load_recipe(file).model.id == "owner/model"
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert load_recipe(file).model.id == str(tmp_path / "owner" / "model")


@pytest.mark.parametrize("name", ["./model", "../x", "a/b/c", "pairs.jsonl", "a/b.parquet", "has blank", ""])
def test_what_is_neither_a_path_nor_a_hub_id_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "r.yaml", BASE.replace("owner/pairs", f"'{name}'"))
    with pytest.raises(RecipeError, match=r"data\.train\.0\.id: '.*' does not exist \(looked at"):
        load_recipe(file)


def test_an_absolute_path_may_be_another_machines(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml", BASE.replace("owner/model", "/models/./llama")))
    assert recipe.model.id == os.path.normpath("/models/llama")


def test_a_text_from_nowhere_has_no_relative_paths() -> None:
    with pytest.raises(RecipeError, match="relative paths lead nowhere"):
        parse_recipe(BASE.replace("owner/model", "./model"))


def test_root_moves_the_start_of_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "files" / "model").mkdir(parents=True)
    text = BASE.replace("owner/model", "./model")
    recipe = load_recipe(write(tmp_path / "r.yaml", f"root: files\n{text}"))
    assert recipe.model.id == str(tmp_path / "files" / "model")
    assert recipe.root == str(tmp_path / "files")


def test_root_on_the_command_line_brings_a_recipe_back_to_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files" / "model").mkdir(parents=True)
    text = BASE.replace("owner/model", "./model")
    file = write(tmp_path / "elsewhere" / "recipe.yaml", f"root: null\n{text}")
    with pytest.raises(RecipeError, match=r"model\.id: '\./model' does not exist"):
        load_recipe(file)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(file, ["root=files"])
    assert recipe.root == str(tmp_path / "files")
    assert recipe.model.id == str(tmp_path / "files" / "model")
    assert recipe.sha256() == load_recipe(write(tmp_path / "files" / "r.yaml", text)).sha256()


# --- identity


def local_recipe(folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    return write(folder / "r.yaml", TWINS.replace("owner/model", "./model"))


def test_the_hash_does_not_depend_on_how_a_recipe_is_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = local_recipe(tmp_path / "one")
    recipe = load_recipe(file)
    monkeypatch.chdir(tmp_path / "one")
    assert load_recipe("r.yaml").sha256() == recipe.sha256()
    assert load_recipe("r.yaml", ["train.lr=5e-7"]).sha256() == recipe.sha256()
    copied = load_recipe(local_recipe(tmp_path / "another"))
    assert copied.model.id != recipe.model.id
    assert copied.sha256() == recipe.sha256()


def test_the_hash_is_of_what_is_resolved(tmp_path: Path) -> None:
    recipe = load_recipe(local_recipe(tmp_path))
    child = write(tmp_path / "child.yaml", "extends: r.yaml\ntrain: {pairs_per_step: 128}\nobjective: {beta: 2e-1}\n")
    assert load_recipe(child).sha256() == recipe.sha256()
    assert load_recipe(tmp_path / "r.yaml", ["seed=1"]).sha256() != recipe.sha256()
    assert len({variant.sha256() for variant in recipe.variant_recipes().values()} | {recipe.sha256()}) == 3
    reordered = (
        BASE.replace("lr: 5e-7, epochs: 2", "epochs: 2, lr: 0.0000005").replace("version: 1\n", "") + "version: 1\n"
    )
    assert parse_recipe(reordered).sha256() == parse_recipe(BASE).sha256()


def test_the_hash_is_that_of_the_canonical_json(tmp_path: Path) -> None:
    """The oracle: what the written recipe holds, without `root` and what fits it to a machine, sorted and compact."""
    recipe = load_recipe(local_recipe(tmp_path))
    values = read_tree(recipe.to_yaml(), "recipe.yaml").plain()
    assert values.pop("root") == str(tmp_path)
    for key in ("tokens_per_microbatch", "activation_checkpointing", "activation_offload"):
        del values["train"][key]
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert recipe.sha256() == hashlib.sha256(canonical.encode()).hexdigest()


def test_fitting_a_recipe_to_a_machine_leaves_its_hash(tmp_path: Path) -> None:
    """What `plan` and `submit` set for a machine; in a variant, too."""
    file = local_recipe(tmp_path)
    recipe = load_recipe(file)
    fitted = ["train.tokens_per_microbatch=512", "train.activation_checkpointing=true"]
    assert load_recipe(file, fitted).sha256() == recipe.sha256()
    assert load_recipe(file, ["train.lr=1e-3"]).sha256() != recipe.sha256()
    twin = load_recipe(file, ["variants.dpo.train.tokens_per_microbatch=512"])
    assert twin.variant_recipes()["dpo"].sha256() == recipe.variant_recipes()["dpo"].sha256()


@pytest.mark.parametrize("variant", [None, "dpo", "inspo"])
def test_the_written_recipe_loads_again_to_the_same_recipe(tmp_path: Path, variant: str | None) -> None:
    recipe = load_recipe(local_recipe(tmp_path / "home"))
    if variant is not None:
        recipe = recipe.variant_recipes()[variant]
    again = load_recipe(write(tmp_path / "out" / "recipe.yaml", recipe.to_yaml()))
    assert again == recipe
    assert again.sha256() == recipe.sha256()
    assert "id: ./model" in recipe.to_yaml(), "as a path that no Hub id looks like"


NUMBERS = st.floats(min_value=1e-12, max_value=1e6, allow_nan=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(lr=NUMBERS, beta=NUMBERS, description=TEXT | st.none(), turn_text=TEXT, seed=st.integers(0, 2**32 - 1))
def test_any_recipe_survives_writing(
    lr: float, beta: float, description: str | None, turn_text: str, seed: int
) -> None:
    recipe = parse_recipe(TWINS)
    changed = recipe.model_dump(mode="json") | {"seed": seed, "description": description}
    changed["train"] |= {"lr": lr}
    changed["objective"] |= {"beta": beta}
    changed["alternative"] |= {"turn_text": turn_text}
    changed["variants"]["dpo"] |= {"description": description}
    changed = Recipe.model_validate(changed, strict=False)
    again = parse_recipe(changed.to_yaml())
    assert again == changed
    assert again.sha256() == changed.sha256()
    assert again.variant_recipes() == changed.variant_recipes()
