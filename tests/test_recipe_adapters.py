"""The `adapter:` section: what it takes, what its nulls mean, what does not go together, and where it may stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspo_hub.errors import RecipeError
from inspo_hub.plan import references
from inspo_hub.recipe import AdapterSection, Recipe, load_recipe, parse_recipe

BASE = """\
version: 1
name: small
model: {id: owner/base}
data: {train: [{id: owner/pairs}]}
train: {lr: 1e-5}
"""


def adapter_of(text: str) -> AdapterSection:
    recipe = parse_recipe(f"{BASE}adapter: {text}\n")
    assert recipe.adapter is not None
    return recipe.adapter


def test_without_the_section_the_whole_model_is_trained() -> None:
    assert parse_recipe(BASE).adapter is None


@pytest.mark.parametrize(
    ("text", "rank", "alpha", "targets"),
    [
        ("{}", 16, 32.0, None),
        ("{r: 4}", 4, 8.0, None),
        ("{r: 4, alpha: 1.5, target_modules: auto}", 4, 1.5, None),
        ("{target_modules: [q_proj, v_proj]}", 16, 32.0, ("q_proj", "v_proj")),
    ],
)
def test_what_is_left_out_has_the_usual_value(
    text: str, rank: int, alpha: float, targets: tuple[str, ...] | None
) -> None:
    section = adapter_of(text)
    assert (section.rank, section.scale_numerator, section.targets) == (rank, alpha, targets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{dropout: 0.05}", "adapter.dropout: 0.05 would put noise into the policy"),
        ("{target_modules: []}", "adapter.target_modules: names no layer"),
        ("{target_modules: all-linear}", "expected: auto, or a list of name ends"),
        ("{r: 0}", "adapter.r: 0"),
        ("{quantize: int8}", "did you mean|expected: one of 'nf4'"),
        ("{base_adapter_revision: main}", "there is no base adapter"),
        ("{base_adapter: owner/lora, r: 8}", "adapter.r: 8 would be ignored: the base adapter brings its own"),
        ("{base_adapter: owner/lora, use_dora: false}", "adapter.use_dora: False would be ignored"),
        ("{base_adapter: /somewhere/lora, base_adapter_revision: main}", "a local path has no revisions"),
        ("{lora_alpha: 16}", "did you mean adapter.alpha"),
        ("lora", "expected: a mapping"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        adapter_of(text)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("lora_r", "adapter.r"), ("use_peft", "adapter"), ("load_in_4bit", "adapter.quantize")]
)
def test_names_of_other_trainers_are_known(theirs: str, ours: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean {ours}"):
        parse_recipe(f"{BASE}{theirs}: 8\n")


def pinned(recipe: Recipe) -> dict[str, tuple[str, str | None]]:
    return {reference.role: (reference.id, reference.revision) for reference in references(recipe)}


def test_an_existing_adapter_is_pinned_like_every_other_repository() -> None:
    recipe = parse_recipe(f"{BASE}adapter: {{base_adapter: owner/lora, base_adapter_revision: v2}}\n")
    assert pinned(recipe)["adapter.base_adapter"] == ("owner/lora", "v2")
    assert "adapter.base_adapter" not in pinned(parse_recipe(f"{BASE}adapter: {{}}\n"))


def test_a_local_adapter_is_a_path_from_the_recipe_and_must_exist(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{BASE}adapter: {{base_adapter: lora}}\n")
    assert pinned(load_recipe(file))["adapter.base_adapter"][0] == str(tmp_path / "lora")
    file.write_text(f"{BASE}adapter: {{base_adapter: ./lara}}\n")
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(file)


def test_twins_may_differ_in_their_adapters() -> None:
    text = f"{BASE}adapter: {{r: 8}}\nvariants:\n  a: {{adapter: {{use_dora: true}}}}\n  b: {{adapter: null}}\n"
    twins = parse_recipe(text).variant_recipes()
    assert twins["a"].adapter == AdapterSection(r=8, use_dora=True)
    assert twins["b"].adapter is None
