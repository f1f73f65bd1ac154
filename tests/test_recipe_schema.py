"""The exported schema and reference page are those of the code, and say the same as the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import InspoError, RecipeError
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.recipe import load_recipe, parse_recipe
from inspo_hub.recipe.export import recipe_schema, schema_text
from inspo_hub.recipe.keys import all_keys
from inspo_hub.recipe.reading import read_tree
from inspo_hub.recipe.reference import reference_page
from inspo_hub.recipe.shipped import copy_recipe, shipped_folder, shipped_recipes

ROOT = Path(__file__).parent.parent
SMALLEST = """\
version: 1
name: tiny
model: {id: owner/model}
data: {train: [{id: owner/pairs}]}
train: {lr: 5e-7}
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def is_valid(validator: Draft202012Validator, text: str) -> bool:
    return bool(validator.is_valid(read_tree(text, "r.yaml").plain()))


def test_the_shipped_schema_is_that_of_the_code() -> None:
    shipped = (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), "run: inspo-hub schema --output recipes/recipe.schema.json"


def test_the_reference_page_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run: inspo-hub schema --format markdown --output docs/recipe.md"


ACCEPTED = [
    "",
    "objective: ipo",
    "objective: {name: simpo, gamma: 0.5}",
    "conditioning: {name: averaged, weight: 0.25}",
    "variants: {a: {conditioning: none}, b: {objective: {beta: 0.3}, train: {epochs: 2}}, c: }",
    "evaluate: {prompts: {id: a/b}, judge: {python: 'm:f'}}",
    "variants:",
]
REFUSED = [
    "sed: 1",
    "seed: x",
    "seed: -1",
    "objective: dpoo",
    "objective: {beta: 0.1}",
    "objective: {name: dpo, gamma: 1}",
    "objective: {name: dpo, beta: true}",
    "conditioning: {name: averaged, weight: 2}",
    "variants: {a: {sed: 1}}",
    "variants: {a: {seed: 1}}",
    "variants: {a: {train: {lr: -1}}}",
    "variants: {a: {objective: {betta: 1}}}",
    "variants: 3",
    "evaluate: {prompts: {id: a/b}}",
    "reference: {source: other}",
]


@pytest.mark.parametrize("line", ACCEPTED)
def test_schema_and_code_accept_the_same(validator: Draft202012Validator, line: str) -> None:
    parse_recipe(f"{SMALLEST}{line}\n")
    assert is_valid(validator, f"{SMALLEST}{line}\n")


@pytest.mark.parametrize("line", REFUSED)
def test_schema_and_code_refuse_the_same(validator: Draft202012Validator, line: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(f"{SMALLEST}{line}\n")
    assert not is_valid(validator, f"{SMALLEST}{line}\n")


def test_what_is_required_may_come_from_an_extended_file(validator: Draft202012Validator) -> None:
    assert not is_valid(validator, "train: {epochs: 2}")
    assert is_valid(validator, "extends: base.yaml\ntrain: {epochs: 2}\nvariants:\n")
    assert not is_valid(validator, "extends: base.yaml\ntrain: {epoch: 2}")


def test_every_key_of_the_schema_is_described_for_editors() -> None:
    def described(schema: Any) -> None:
        if isinstance(schema, dict):
            for name, child in schema.get("properties", {}).items():
                assert child.get("description") or name == "name" or "$ref" in child, name
            for child in schema.values():
                described(child)

    described(recipe_schema()["$defs"])


def test_the_page_has_every_key_objective_and_conditioning() -> None:
    page = reference_page()
    for key in all_keys():
        assert f"`{key.leaf}`" in page or key.leaf == "name"
    for name in OBJECTIVES:
        assert f"### `objective: {name}`" in page
    for name in CONDITIONINGS:
        assert f"### `conditioning: {name}`" in page


def test_the_recipes_of_the_page_are_valid(validator: Draft202012Validator) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", reference_page(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        parse_recipe(block)
        assert is_valid(validator, block)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_name_their_schema(validator: Draft202012Validator, name: str) -> None:
    file = shipped_folder() / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    load_recipe(file)
    assert is_valid(validator, text)
    header = re.search(r"^# yaml-language-server: \$schema=(\S+)$", text, flags=re.MULTILINE)
    assert header, "the header lets editors check the recipe while it is written"
    assert (file.parent / header[1]).resolve() == (shipped_folder() / "recipe.schema.json").resolve()


# --- shipped recipes


def test_a_copy_of_a_shipped_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    files = copy_recipe("quickstart", tmp_path / "mine")
    assert files[0] == tmp_path / "mine" / "quickstart.yaml"
    assert all(file.is_file() for file in files)
    assert not [file for file in files if "__pycache__" in file.parts]
    copied, shipped = load_recipe(files[0]), load_recipe(shipped_folder() / "quickstart.yaml")
    assert copied.sha256() == shipped.sha256()
    assert copied.model.id.startswith(str(tmp_path))


def test_copying_overwrites_nothing_unasked(tmp_path: Path) -> None:
    mine = tmp_path / "quickstart.yaml"
    mine.write_text("mine")
    with pytest.raises(RecipeError, match=r"already there: .*quickstart\.yaml"):
        copy_recipe("quickstart", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart.yaml"]
    assert mine.read_text() == "mine"
    copy_recipe("quickstart", tmp_path, overwrite=True)
    assert mine.read_text() != "mine"


def test_a_copy_holds_what_the_recipe_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    for name, text in {
        "base.yaml": SMALLEST.replace("owner/pairs", "base/pairs.jsonl"),
        "base/pairs.jsonl": "",
        "base/__pycache__/x.pyc": "",
        "deep/child.yaml": "extends: ../base.yaml\nseed: 1\n",
        "accelerate/fsdp.yaml": "compute_environment: LOCAL_MACHINE",
        "recipe.schema.json": "{}",
    }.items():
        (shipped / name).parent.mkdir(parents=True, exist_ok=True)
        (shipped / name).write_text(text)
    monkeypatch.setattr("inspo_hub.recipe.shipped.shipped_folder", lambda: shipped)
    assert shipped_recipes() == ["base", "deep/child"]
    files = copy_recipe("deep/child", tmp_path / "mine")
    assert [file.relative_to(tmp_path / "mine").as_posix() for file in files] == [
        "deep/child.yaml",
        "base.yaml",
        "base/pairs.jsonl",
        "recipe.schema.json",
    ]
    assert load_recipe(files[0]).seed == 1


def test_a_full_disk_leaves_no_half_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Path] = []

    def copy_two(source: Path, target: Path) -> None:
        target.write_text("half")
        copied.append(target)
        if len(copied) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("inspo_hub.recipe.shipped.shutil.copyfile", copy_two)
    with pytest.raises(InspoError, match="cannot be written: No space left on device"):
        copy_recipe("quickstart", tmp_path)
    assert len(copied) == 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unknown_recipe_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no recipe 'quikstart' is shipped") as caught:
        copy_recipe("quikstart", Path())
    assert caught.value.fix == "did you mean quickstart?"


def test_the_wheel_carries_the_recipes_where_the_finder_looks() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"recipes": "inspo_hub/_recipes", "spaces": "inspo_hub/_spaces"}
