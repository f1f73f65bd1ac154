"""The comparison card: every variant with its figures, what differs, what the intervals say, links that lead there."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from inspo_hub.card import CardFacts, frontier_chart, twin_card, write_twin_card
from inspo_hub.recipe import Recipe, parse_recipe
from tests.card.conftest import EVALUATION, RECIPE, SUMMARY, MakeFacts
from tests.card.test_card import cells, section


def twins(make_facts: MakeFacts, **fields: object) -> tuple[Recipe, list[CardFacts]]:
    slower = SUMMARY | {"variant": "inspo", "tokens_per_step": 2 * SUMMARY["tokens_per_step"]}
    return parse_recipe(RECIPE), [
        make_facts(variant="dpo", repo_id=None, **fields),
        make_facts(**({"summary": slower} | fields)),
    ]


def test_each_variant_is_named_with_a_link_to_its_card(make_facts: MakeFacts) -> None:
    card = twin_card(*twins(make_facts))
    assert card.startswith("# fox: `dpo` against `inspo`\n")
    assert "[dpo](dpo/README.md), [inspo](https://huggingface.co/user/fox-inspo)" in card
    assert "on the same pairs in the same order from the same seed (0), 110 optimizer steps each" in card


def test_what_differs_is_what_differs(make_facts: MakeFacts) -> None:
    rows = cells(section(twin_card(*twins(make_facts)), "What differs"))
    assert rows[2:] == [["`conditioning.name`", "`none`", "`averaged`"], ["`conditioning.weight`", "–", "`0.5`"]]


def test_win_rates_kl_and_verdicts_of_all(make_facts: MakeFacts) -> None:
    answers = section(twin_card(*twins(make_facts)), "Answers")
    assert answers.strip().startswith("`dpo` against `inspo`: no difference.")
    rows = {row[0]: row[1:] for row in cells(answers)}
    assert rows["`dpo`"][:2] == ["62.5% [57.5%, 67.5%]", "2.50 [2.45, 2.55]"]
    assert rows["`dpo` against `base`"][-1] == "dpo is better"


def test_cost_of_each_and_their_ratio(make_facts: MakeFacts) -> None:
    cost = section(twin_card(*twins(make_facts)), "Cost")
    rows = {row[0]: row[1:] for row in cells(cost)}
    assert rows["`dpo`"][3] == "1,122"
    assert rows["`inspo`"][3] == "2,245"
    assert "differ by a factor of 2.00" in cost


def test_papers_of_all_variants_once(make_facts: MakeFacts) -> None:
    cited = section(twin_card(*twins(make_facts)), "Citations")
    assert len(re.findall("@misc", cited)) == 2


def test_nothing_measured_is_said(make_facts: MakeFacts) -> None:
    fields = {"evaluation": None, "summary": {"steps": 3}, "metrics": [], "data_report": None}
    card = twin_card(*twins(make_facts, **fields))
    assert "No answers were generated and judged." in card
    assert "Nothing was measured on held-out pairs." in card
    assert ".svg" not in card


def test_pictures_are_those_the_card_names(make_facts: MakeFacts, tmp_path: Path) -> None:
    write_twin_card(tmp_path, *twins(make_facts))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"!\[[^\]]*\]\(([^)]*)\)", card))
    assert named == {f"report/{path.name}" for path in (tmp_path / "report").iterdir()}
    for name in named:
        ElementTree.parse(tmp_path / name)


def test_the_frontier_has_a_point_with_both_intervals_for_each_variant() -> None:
    svg = frontier_chart(EVALUATION)
    assert svg is not None
    root = ElementTree.fromstring(svg)
    bars = [element for element in root.iter() if (element.get("class") or "").startswith("ih-bar")]
    assert len(bars) == 4
    assert "dpo: 0.625 at 2.5. inspo" not in svg
    assert "dpo: 0.625 at 2.5; inspo: 0.6125 at 1.25" in svg


def test_no_frontier_without_kl() -> None:
    systems = [system | {"kl_from_base": None} for system in EVALUATION["systems"]]
    assert frontier_chart(EVALUATION | {"systems": systems}) is None
    assert frontier_chart(None) is None


def test_one_variant_is_a_comparison_with_the_base(make_facts: MakeFacts) -> None:
    card = twin_card(parse_recipe(RECIPE), [make_facts()])
    assert "One variant of [org/base]" in card
    assert "## What differs" not in card
