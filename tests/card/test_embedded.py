"""Recipe and lock in a card: read again they are what was run, whatever else the card says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspo_hub.card import model_card, recipe_and_lock_from_card, twin_card
from inspo_hub.card.embedded import local_files
from inspo_hub.card.private import hide_paths_in
from inspo_hub.errors import ResolutionError
from inspo_hub.plan import RUN_SHA256
from inspo_hub.recipe import parse_recipe
from tests.card.conftest import LOCK, RECIPE, MakeFacts


def test_the_recipe_and_the_lock_come_back(make_facts: MakeFacts) -> None:
    facts = make_facts()
    text, lock = recipe_and_lock_from_card(model_card(facts))
    assert parse_recipe(text).sha256() == facts.recipe.sha256()
    assert facts.recipe.sha256() in model_card(facts)
    assert lock == LOCK


def test_windows_line_ends_change_nothing(make_facts: MakeFacts) -> None:
    card = model_card(make_facts())
    assert recipe_and_lock_from_card(card.replace("\n", "\r\n")) == recipe_and_lock_from_card(card)


def test_a_twin_card_holds_the_recipe_with_its_variants(make_facts: MakeFacts) -> None:
    recipe = parse_recipe(RECIPE)
    card = twin_card(recipe, [make_facts(variant="dpo"), make_facts()])
    text, _ = recipe_and_lock_from_card(card)
    assert parse_recipe(text).sha256() == recipe.sha256()
    assert set(parse_recipe(text).variant_recipes()) == {"dpo", "inspo"}


hostile = st.text(
    alphabet=st.sampled_from(list("`~-#<>!| \t:'\"\\{}[]&*%@abcé\u2028\x85\n\r\x07")), min_size=1, max_size=40
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(hostile, hostile)
def test_no_text_breaks_out_of_its_block(make_facts: MakeFacts, first: str, second: str) -> None:
    facts = make_facts()
    alternative = facts.recipe.alternative.model_copy(update={"turn_text": f"```\n{first}\n````"})
    recipe = facts.recipe.model_copy(update={"alternative": alternative, "description": f"x{second}"})
    marks = f"<!-- inspo_hub: recipe -->\n```yaml\nnot: this\n```\n{first}"
    recipe = recipe.model_copy(update={"description": marks + second})
    text, lock = recipe_and_lock_from_card(model_card(make_facts(recipe=recipe, lock={"note": f"xx{first}{second}"})))
    read = parse_recipe(text)
    assert read.alternative.turn_text == alternative.turn_text
    assert read.description == recipe.description
    assert lock == hide_paths_in({"note": f"xx{first}{second}"})  # what looks like an absolute path is shortened


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("# a model of somebody else", "holds no recipe"),
        ("<!-- inspo_hub: recipe -->\n```yaml\na: 1\n```\n", "holds no lock"),
        (
            "<!-- inspo_hub: recipe -->\n```yaml\na: 1\n```\n<!-- inspo_hub: lock -->\n```json\n{oops\n```\n",
            "is not JSON",
        ),
        ("<!-- inspo_hub: recipe -->\nsomething else\n```yaml\na: 1\n```", "holds no recipe"),
    ],
)
def test_a_card_without_them_is_a_user_s_problem(card: str, said: str) -> None:
    with pytest.raises(ResolutionError, match=said) as caught:
        recipe_and_lock_from_card(card, where="someone/model@abc")
    assert caught.value.where == "someone/model@abc"
    assert caught.value.fix


def test_relative_paths_travel_and_absolute_ones_show_their_name(make_facts: MakeFacts, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.jsonl").write_text("{}", encoding="utf-8")
    text = RECIPE.replace("id: org/pairs", "id: data/pairs.jsonl").replace("id: org/base", "id: /srv/secret user/base")
    facts = make_facts(text, folder=tmp_path)
    embedded, _ = recipe_and_lock_from_card(model_card(facts))
    assert "id: ./data/pairs.jsonl" in embedded
    assert "id: ./base" in embedded, "a path, which nobody can take for a Hub id"
    assert str(tmp_path) not in embedded
    assert "root: null" in embedded
    assert local_files(facts.recipe) == ["./base", "./data/pairs.jsonl"]
    assert "secret" not in model_card(facts)


def test_without_absolute_paths_the_hash_stays(make_facts: MakeFacts, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}", encoding="utf-8")
    facts = make_facts(RECIPE.replace("id: org/pairs", "id: pairs.jsonl"), folder=tmp_path)
    embedded, _ = recipe_and_lock_from_card(model_card(facts))
    assert parse_recipe(embedded, folder=tmp_path).sha256() == facts.recipe.sha256()


def test_a_variants_card_names_the_hash_of_the_whole_recipe(make_facts: MakeFacts) -> None:
    """It is what the label of a Job carries; without variants it is the recipe's own and said once."""
    facts = make_facts()
    whole = {**facts.lock, "extra": {RUN_SHA256: "ab" * 32}}
    assert f"it is a variant of the recipe `{'ab' * 32}`" in model_card(replace(facts, lock=whole))
    own = {**facts.lock, "extra": {RUN_SHA256: facts.recipe.sha256()}}
    assert "it is a variant of" not in model_card(replace(facts, lock=own))
