"""The comparison from judged answers whose truth is known, and what its tables say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from inspo_hub.evaluate.report import NOTHING, tables
from inspo_hub.evaluate.result import EvaluationResult, SystemAnswers, compare_table

ROWS = 400


def judged(name: str, scores: np.ndarray, *, ratio: float | None = None) -> SystemAnswers:
    """A system with these scores; every log-ratio to the base is `ratio`."""
    rows = len(scores)
    return SystemAnswers(
        name=name,
        scores=scores.tolist(),
        tokens=[40] * rows,
        words=[30] * rows,
        finished=[True] * (rows - 1) + [False],
        well_formed=[True] * (rows - 4) + [False] * 4,
        logps=None if ratio is None else [-12.0 + ratio] * rows,
        reference_logps=None if ratio is None else [-12.0] * rows,
    )


@pytest.fixture(scope="module")
def result() -> EvaluationResult:
    rng = np.random.default_rng(0)
    prompt = rng.normal(size=ROWS)
    better, alike = prompt + 1 + rng.normal(size=ROWS), prompt + rng.normal(size=ROWS)
    answers = [
        judged("base", prompt + rng.normal(size=ROWS)),
        judged("good", better, ratio=1.5),
        judged("twin", better, ratio=0.75),
        judged("same", alike, ratio=0.0),
    ]
    return compare_table(
        answers,
        list(range(ROWS)),
        judge="rules.py:score",
        settings={"temperature": 1.0},
        training={
            "good": {"tokens_per_step": 5120.0, "seconds_per_step": 0.4, "plain_margin": 1.25, "odd_number": 7.0}
        },
    )


def test_every_variant_meets_the_base_and_every_other_variant_once(result: EvaluationResult) -> None:
    pairs = [(pair.first, pair.second) for pair in result.comparisons]
    against_base = [("good", "base"), ("twin", "base"), ("same", "base")]
    assert pairs == [*against_base, ("good", "twin"), ("good", "same"), ("twin", "same")]


def test_estimates_are_what_the_scores_say(result: EvaluationResult) -> None:
    good, base = result.system("good"), result.system("base")
    # scores differ by 1 + N(0, 2): the first is higher with probability Φ(1/√2) = .760
    assert good.win_rate_against_base is not None
    assert good.win_rate_against_base.value == pytest.approx(0.760, abs=0.07)
    assert result.comparison("good", "base").win_rate == good.win_rate_against_base
    assert base.win_rate_against_base is None
    assert good.kl_from_base is not None
    assert good.kl_from_base.value == pytest.approx(1.5)
    assert base.kl_from_base is None
    assert (good.well_formed, good.finished) == (pytest.approx(1 - 4 / ROWS), pytest.approx(1 - 1 / ROWS))


def test_no_difference_is_said_in_words_and_a_difference_names_the_winner(result: EvaluationResult) -> None:
    assert result.comparison("good", "base").verdict == "good is better"
    assert result.comparison("same", "base").verdict == "no difference"
    twins = result.comparison("good", "twin")
    assert twins.verdict == "no difference"
    assert twins.win_rate_difference is not None
    assert twins.win_rate_difference.value == 0.0
    flipped = replace(
        result.comparison("good", "base"), first="worse", second="good", win_rate=replace(twins.win_rate, high=0.4)
    )
    assert replace(flipped, win_rate=replace(flipped.win_rate, value=0.3, low=0.2)).verdict == "good is better"


def test_markdown_and_text_show_the_same_cells(result: EvaluationResult) -> None:
    markdown, text = result.to_markdown(), result.to_text()
    for table in tables(result):
        for row in table.rows:
            assert "| " + " | ".join(row) + " |" in markdown
            assert all(cell in text for cell in row)
    assert "no difference" in markdown
    assert "| base | – | – |" in markdown
    assert f"{ROWS} prompts, answers sampled at temperature 1.0, judged by `rules.py:score`" in markdown
    aligned = [line for line in markdown.splitlines() if line.startswith("|---")]
    assert [line.count("|") - 1 for line in aligned] == [len(table.columns) for table in tables(result)]


def test_training_numbers_come_in_reading_order_with_their_headings(result: EvaluationResult) -> None:
    training = tables(result)[-1]
    assert training.columns == ["training", "plain margin", "tokens/step", "seconds/step", "odd number"]
    assert training.rows == [["good", "1.25", "5,120", "0.4", "7"]]


def test_a_judge_that_cannot_tell_gets_no_well_formed_column() -> None:
    answers = replace(judged("base", np.zeros(3)), well_formed=None)
    result = compare_table([answers], ["a", "b", "c"], judge="j", settings={"temperature": 0})
    assert "well-formed" not in result.to_markdown()
    assert "greedy answers" in result.to_markdown()
    assert NOTHING in result.to_text()


def test_json_is_strict_and_complete(result: EvaluationResult) -> None:
    decoded = json.loads(result.to_json())
    assert [system["name"] for system in decoded["systems"]] == ["base", "good", "twin", "same"]
    assert decoded["systems"][1]["kl_from_base"]["value"] == pytest.approx(1.5)
    assert decoded["comparisons"][0]["verdict"] == "good is better"
    assert decoded["comparisons"][0]["win_rate"]["clusters"] == ROWS
    assert decoded["settings"] == {"temperature": 1.0, "interval": 0.95, "bootstrap": 1000}
    assert decoded["training"]["good"]["tokens_per_step"] == 5120.0


def test_the_frontier_names_who_is_beaten_at_its_kl(result: EvaluationResult) -> None:
    found = {point["system"]: point for point in result.frontier()}
    assert set(found) == {"good", "twin", "same"}
    assert found["twin"]["on_frontier"], "as good at half the KL"
    assert not found["good"]["on_frontier"]
    assert found["same"]["on_frontier"], "nobody is nearer to the base"
    assert result.to_dict()["frontier"] == result.frontier()
