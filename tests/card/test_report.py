"""The page and what it adds to the comparison: samples, word diffs, seeds, measured tables; texts are never markup."""

from __future__ import annotations

import math
import re
import statistics
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspo_hub.card import CardFacts, frontier_chart, model_card, model_page, twin_card, twin_page, write_twin_card
from inspo_hub.card.diff import diff_html, diff_text, word_diff
from inspo_hub.card.measured import latency_table, preference_tables
from inspo_hub.card.samples import SHOWN, samples, samples_html
from inspo_hub.card.seeds import settings_of, t_interval
from inspo_hub.recipe import Recipe, parse_recipe
from tests.card.conftest import EVALUATION, RECIPE, SUMMARY, MakeFacts, estimate
from tests.card.test_card import cells, section

HOSTILE = (
    "</div></p><script>alert(1)</script><img src=x onerror=alert(1)> & \x00 `````` \n| **b** [a](javascript:alert(1))"
)


def row(number: int, **responses: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"ask <{number}>"}],
        "responses": responses,
        "scores": {name: 1.5 for name in responses},
    }


class Tags(HTMLParser):
    """The tags of a page, those that stay open, and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "hr", "img", "path", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes something else"


# --- words


def test_a_diff_tells_words_apart_and_keeps_both_texts() -> None:
    assert word_diff("the cat sat", "the dog sat") == [
        ("both", "the "),
        ("first", "cat"),
        ("second", "dog"),
        ("both", " sat"),
    ]
    assert diff_text("the cat sat", "the dog sat") == "the [-cat-]{+dog+} sat"
    assert diff_html("a <b> c", "a <i> c") == ("a &lt;<del>b</del>&gt; c", "a &lt;<ins>i</ins>&gt; c")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=" ab.<&\n", max_size=30), st.text(alphabet=" ab.<&\n", max_size=30))
def test_the_runs_of_a_diff_are_the_texts(first: str, second: str) -> None:
    runs = word_diff(first, second)
    assert "".join(text for side, text in runs if side != "second") == first
    assert "".join(text for side, text in runs if side != "first") == second
    for shown in diff_html(first, second):
        assert set(Tags(shown).names) <= {"del", "ins"}


def test_texts_too_long_to_compare_are_shown_whole() -> None:
    assert word_diff("a " * 3000, "b " * 3000) == [("first", "a " * 3000), ("second", "b " * 3000)]


# --- samples


def test_samples_show_the_first_prompts_and_what_the_second_says_otherwise() -> None:
    rows = [row(number, base="x", dpo="the cat", inspo="the dog") for number in range(8)]
    text = samples(rows)
    assert text.count("### Prompt") == SHOWN
    assert f"The first {SHOWN} prompts of the evaluation, not chosen by their answers." in text
    assert "`dpo`, judged 1.5:\n\n```text\nthe cat\n```" in text
    assert "from `dpo` to `inspo`:\n\n```text\nthe [-cat-]{+dog+}\n```" in text
    page = samples_html(rows)
    assert "ask &lt;0&gt;" in page
    assert page.count("the <del>cat</del>") == page.count("the <ins>dog</ins>") == SHOWN
    assert samples([]) == samples_html([]) == ""


def test_many_systems_are_cut_and_a_single_one_is_not_compared() -> None:
    many = [row(0, base="x", **{f"v{i}": "y" for i in range(9)})]
    assert "4 more variants answered, and are not shown." in samples(many)
    assert "v5" not in samples_html(many)
    one = [row(0, base="x", only="y")]
    assert "[-" not in samples(one)
    assert Tags(samples_html(one)).names.count("ins") == 1  # the legend's


def test_hostile_answers_are_text(make_facts: MakeFacts) -> None:
    rows = [row(0, base=HOSTILE, dpo=HOSTILE, inspo=HOSTILE + " more")]
    recipe, variants = twins(make_facts, samples=rows)
    page = twin_page(recipe, variants)
    tags = Tags(page)
    assert not {"script", "img", "iframe", "object", "link"} & set(tags.names)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "\x00" not in page
    assert "&lt;script&gt;alert(1)" in page
    plain = model_page(make_facts(samples=rows))
    assert "script" not in Tags(plain).names
    # In Markdown they stay in their fence, which is longer than any run of backticks in them.
    block = re.search(r"\n(`{7,})text\n(.*?)\n\1\n", twin_card(recipe, variants), flags=re.DOTALL)
    assert block is not None
    assert "<script>" in block[2]


# --- the page


def twins(make_facts: MakeFacts, **fields: object) -> tuple[Recipe, list[CardFacts]]:
    return parse_recipe(RECIPE), [make_facts(variant="dpo", repo_id=None, **fields), make_facts(**fields)]


def test_the_page_holds_everything_and_fetches_nothing(make_facts: MakeFacts, tmp_path: Path) -> None:
    recipe, variants = twins(make_facts, samples=[row(0, base="x", dpo="y", inspo="z")])
    page = twin_page(recipe, variants)
    tags = Tags(page)
    assert tags.open == []
    write_twin_card(tmp_path, recipe, variants)
    pictures = list((tmp_path / "report").iterdir())
    assert tags.names.count("svg") == len(pictures) == 3
    fetching = [value for name, value in tags.attributes if name in ("src", "srcset", "data", "action")]
    assert fetching == []
    assert "url(" not in page
    assert "@import" not in page
    policy = dict(tags.attributes)["content"]  # the last meta's
    assert "default-src 'none'" in page
    assert policy
    assert "prefers-color-scheme: dark" in page
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [line[3:] for line in twin_card(recipe, variants).splitlines() if line.startswith("## ")]
    assert 'href="../dpo/README.md"' in page
    assert 'href="https://huggingface.co/user/fox-inspo"' in page
    assert page == twin_page(recipe, variants)


def test_a_single_models_page_is_its_card(make_facts: MakeFacts) -> None:
    page = model_page(make_facts(samples=[row(0, base="x", inspo="y")]))
    assert page.count("<svg") == 1
    assert "pipeline_tag" not in page
    assert Tags(page).open == []


# --- many variants, and seeds


SWEPT = RECIPE + "sweep: {objective.beta: [0.1, 0.3], seed: [0, 1, 2]}\n"


def swept(make_facts: MakeFacts) -> tuple[Recipe, list[CardFacts]]:
    recipe = parse_recipe(SWEPT)
    names = list(recipe.variant_recipes())
    rates = {name: 0.6 + 0.01 * index for index, name in enumerate(names)}
    systems = [EVALUATION["systems"][0]] + [
        EVALUATION["systems"][1]
        | {"name": name, "win_rate_against_base": estimate(rate), "kl_from_base": estimate(1.0)}
        for name, rate in rates.items()
    ]
    pairs = [
        {"first": name, "second": "base", "win_rate": estimate(rate), "score_difference": None, "verdict": "x"}
        for name, rate in rates.items()
    ] + [
        {
            "first": a,
            "second": b,
            "win_rate": estimate(0.5),
            "score_difference": estimate(0.0),
            "verdict": "no difference",
        }
        for a, b in product(names, repeat=2)
        if a < b
    ]
    evaluation = EVALUATION | {"systems": systems, "comparisons": pairs}
    facts = [
        make_facts(SWEPT, name, evaluation=evaluation, repo_id=None, summary=SUMMARY | {"variant": name})
        for name in names
    ]
    return recipe, facts


def test_settings_are_variants_but_for_the_seed() -> None:
    recipe = parse_recipe(SWEPT)
    found = settings_of(recipe)
    assert list(found) == ["dpo_beta0.1", "dpo_beta0.3", "inspo_beta0.1", "inspo_beta0.3"]
    assert found["dpo_beta0.3"] == [f"dpo_beta0.3_seed{seed}" for seed in range(3)]
    assert settings_of(parse_recipe(RECIPE)) == settings_of(parse_recipe(RECIPE + "sweep: {seed: [1]}\n")) == {}


def test_means_over_seeds_with_the_t_interval(make_facts: MakeFacts) -> None:
    card = twin_card(*swept(make_facts))
    over = section(card, "Over seeds")
    rows = {line[0]: line[1:] for line in cells(over)}
    values = [0.60, 0.61, 0.62]
    half = 4.303 * statistics.stdev(values) / math.sqrt(3)
    assert rows["`dpo_beta0.1`"][:2] == ["3", f"61.0% [{0.61 - half:.1%}, {0.61 + half:.1%}]"]
    assert "`dpo_beta0.3` less `dpo_beta0.1`, seed by seed: win rate against base +3.0% [+3.0%, +3.0%]: higher" in over
    assert "KL from base, nats +0.00 [+0.00, +0.00]: no difference" in over
    assert "for each of the seeds 0, 1, 2" in card
    assert "One training run of each variant" not in card


def test_a_benchmarks_answers_are_the_opponent_and_its_readings_stand_beside(make_facts: MakeFacts) -> None:
    systems = [one | {"win_rate_against_base": None, "score": None} for one in EVALUATION["systems"]]
    pairs = [
        {
            "first": name,
            "second": "gpt4",
            "win_rate": estimate(rate),
            "score_difference": None,
            "verdict": "gpt4 is better",
            "adjusted": {"length-controlled win rate": estimate(rate + 0.1)},
        }
        for name, rate in (("base", 0.1), ("dpo", 0.2), ("inspo", 0.3))
    ]
    evaluation = EVALUATION | {"systems": systems, "comparisons": pairs, "opponents": ["gpt4"]}
    recipe, variants = twins(make_facts, evaluation=evaluation)
    card = twin_card(recipe, variants)
    rows = {line[0]: line[1:] for line in cells(section(card, "Answers"))}
    assert rows["answers"][:3] == ["win rate against gpt4", "length-controlled win rate", "KL from base, nats"]
    assert rows["`inspo`"][:2] == ["30.0% [25.0%, 35.0%]", "40.0% [35.0%, 45.0%]"]
    assert "No other variant wins more at less KL than `inspo`;" in card
    svg = frontier_chart(evaluation)
    assert svg is not None
    assert "win rate against gpt4" in svg
    text = model_card(variants[1])
    assert "its answers win 30.0% [25.0%, 35.0%] against `gpt4`" in text
    assert "(gpt4 is better)" in text
    assert "not controlled for length" not in text
    assert "Win rate against gpt4" in text


def test_the_t_interval_is_students() -> None:
    low, high = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low, high) == pytest.approx((3 - 1.963, 3 + 1.963), abs=1e-3)
    assert all(map(math.isnan, t_interval([1.0])))


def test_many_variants_make_a_page_that_can_be_read(make_facts: MakeFacts) -> None:
    recipe, facts = swept(make_facts)
    card = twin_card(recipe, facts)
    assert card.startswith("# fox: 12 variants\n")
    differs = cells(section(card, "What differs"))
    assert differs[0][:2] == ["recipe key", "`seed`"]
    assert len(differs) == 2 + 12
    answers = section(card, "Answers")
    shown = [line for line in cells(answers) if " against " in line[0]]
    assert len(shown) == 12 + 11
    assert "Every other pair of variants stands in `report/comparison.md`." in answers
    assert "Of the first 8 variants" in section(card, "Curves")
    svg = frontier_chart(facts[0].evaluation, {one.variant: one.recipe.conditioning.name for one in facts})
    assert svg is not None
    assert len(re.findall(r'<circle class="ih-mark', svg)) == 6 + 1  # a mark of each variant, and one of the legend
    best = facts[-1].variant
    assert f"No other variant wins more at less KL than `{best}`;" in answers


# --- measured tables


def preferences() -> dict[str, Any]:
    def context(value: float) -> dict[str, Any]:
        names = ("accuracy", "margin", "accuracy_without_reference", "accuracy_per_token", "chosen_longer")
        return {name: estimate(value) for name in names} | {"chosen_shorter": None}

    base = context(0.55) | {"accuracy": None, "margin": None}
    return {
        "pairs": 50,
        "prompts": 40,
        "longer_chosen": 0.66,
        "contexts": {"shuffled": "in random order", "plain": "the prompt alone", "seen": "as in training"},
        "systems": {
            "base": {"plain": base, "seen": base, "shuffled": base},
            "dpo": {"plain": context(0.7), "seen": context(0.6), "shuffled": context(0.5)},
            "inspo": {"plain": context(0.8), "seen": context(0.9), "shuffled": context(0.4)},
        },
        "differences": [
            {
                "first": "inspo",
                "second": "dpo",
                "context": "plain",
                "accuracy": estimate(0.1),
                "verdict": "no difference",
            }
        ],
        "distillation_gaps": {"dpo": estimate(-0.1), "inspo": estimate(0.1)},
    }


def test_preferences_by_context_in_a_fixed_order_with_their_words(make_facts: MakeFacts) -> None:
    text = preference_tables(preferences())
    rows = {(line[0], len(line)): line[1:] for line in cells(text)}
    assert rows["accuracy", 4] == ["plain", "seen", "shuffled"]
    assert rows["`base`", 4] == ["55.0% ± 2.5%"] * 3
    assert rows["`inspo`", 4] == ["80.0% ± 2.5%", "90.0% ± 2.5%", "40.0% ± 2.5%"]
    assert rows["`dpo`", 5][-1] in ("−0.100 ± 0.025", "55.0% ± 2.5%", "70.0% ± 2.5%")
    assert "50 held-out pairs of 40 prompts; the chosen answer is the longer one in 66.0%" in text
    assert "with the base **in the same context**" in text
    assert "`inspo` against `dpo`, difference of accuracies: plain +10.0% ± 2.5%: no difference." in text
    assert "dpo" not in preference_tables(preferences(), only="inspo")
    assert preference_tables(None) == latency_table(None) == ""
    card = twin_card(*twins(make_facts, preferences=preferences()))
    assert "### Preferences in other contexts" in section(card, "Held-out preferences")


def test_latency_says_what_is_the_same_and_what_is_not() -> None:
    spread = {"median": 1.0, "low": 0.99, "high": 1.01}
    variant = {
        **{name: spread for name in ("first_token_ratio", "token_ratio")},
        **{name: {key: value / 100 for key, value in spread.items()} for name in ("first_token_s", "token_s")},
        "verdict": "no difference",
        "differences": [],
    }
    latency = {
        "workload": {"prompt_tokens": 256, "new_tokens": 64, "batch_size": 1, "rounds": 20},
        "device": "cpu",
        "base": {"architecture": "LlamaForCausalLM", "parameters": 1000, "dtypes": {"BF16": 1000}, "weight_bytes": 2e6},
        "variants": {"dpo": variant, "inspo": variant | {"differences": ["stored as F32, the base as BF16"]}},
    }
    text = latency_table(latency)
    rows = {line[0]: line[1:] for line in cells(text)}
    assert rows["`dpo`"] == ["10 [9.9, 10.1]"] * 2 + ["1.000 [0.990, 1.010]"] * 2 + ["no difference"]
    assert "- the same architecture, number of parameters and stored number format as the base: `dpo`." in text
    assert "- `inspo` differs: stored as F32, the base as BF16." in text
