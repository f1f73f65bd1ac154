"""Arena-Hard's rules against tables of cases, its Bradley-Terry score, and style with a known effect."""

from __future__ import annotations

import numpy as np
import pytest

from inspo_hub.evaluate.arena import Games, arena_score, games, parse_verdict
from inspo_hub.evaluate.frontier import on_frontier, win_rate_at
from inspo_hub.evaluate.logistic import l1_logistic, sigmoid
from inspo_hub.evaluate.style import FEATURES, Style, style_controlled, style_difference, style_of


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("My verdict: [[A>>B]]", (1.0, 3.0)),
        ("[[A>B]] at first, but finally [[B>A]]", (0.0, 1.0)),
        ("[[a=b]]", (0.5, 1.0)),
        ("I say [B>>A].", (0.0, 3.0)),
        ("[A>B] is one thing, [[B>>A]] is the verdict", (0.0, 3.0)),
        ("[[A<<B]]", (0.0, 3.0)),
        ("[[A>>A]]", None),
        ("Both are good.", None),
        ("", None),
    ],
)
def test_verdicts(text: str, outcome: tuple[float, float] | None) -> None:
    assert parse_verdict(text) == outcome


def test_a_failed_game_is_dropped_alone_or_with_its_question() -> None:
    played = games(
        ["q1", "q2", "q3"],
        ["[[B>>A]]", "[[A>B]]", "no verdict"],  # the baseline is A
        ["[[A>B]]", None, "[[A=B]]"],  # the system is A
    )
    assert played.counted("0.1").scores.tolist() == [1.0, 0.0, 1.0, 0.5]
    assert arena_score(played, version="0.1").value == pytest.approx((3 * 1 + 0 + 1 + 0.5) / 6)
    assert played.counted("2.0").scores.tolist() == [1.0, 1.0]
    assert arena_score(played, version="2.0").value == 1.0
    assert arena_score(played, version="2.0").clusters == 1


def random_games(seed: int, questions: int = 200, skill: float = 0.4) -> Games:
    rng = np.random.default_rng(seed)
    taste = np.repeat(rng.normal(size=questions), 2)  # the two games of a question agree more than not
    scores = np.round(2 * sigmoid(skill + 2 * taste + rng.logistic(size=2 * questions))) / 2
    return Games(
        questions=np.repeat(np.arange(questions), 2).tolist(),
        scores=scores,
        weights=rng.choice([1.0, 3.0], size=2 * questions),
    )


def test_the_score_is_the_bradley_terry_win_probability_against_one_baseline() -> None:
    played = random_games(0)
    strength = l1_logistic(np.ones((len(played.scores), 1)), played.scores, played.weights, penalty=0.0)
    assert arena_score(played).value == pytest.approx(float(sigmoid(strength)[0]), abs=1e-9)


def test_intervals_are_over_questions_and_wider_than_over_rows() -> None:
    played = random_games(1)
    clustered = arena_score(played, level=0.95)
    rows = np.repeat(np.arange(len(played.scores)), played.weights.astype(int))
    copied = Games(questions=list(range(len(rows))), scores=played.scores[rows], weights=np.ones(len(rows)))
    official = arena_score(copied, level=0.95)
    assert official.value == pytest.approx(clustered.value)
    assert clustered.high - clustered.low > 1.3 * (official.high - official.low)
    assert arena_score(played).level == 0.90
    assert arena_score(played, version="0.1").level == 0.95


def test_styles_are_counted_outside_of_code() -> None:
    text = "# Title\n- one\n- two\n1. three\n**bold** and __more__\n```\n# not a title\n- no list\n```\n"
    assert style_of(text, 12) == Style(12, headers=1, lists=3, bold=2)
    longer, shorter = Style(30, 0, 0, 0), Style(10, 1, 0, 0)
    found = style_difference([longer, shorter], [shorter, longer])
    assert found[0].tolist() == pytest.approx([0.5, -(1 / 11) / (1 / 11 + 1), 0.0, 0.0])
    np.testing.assert_allclose(found[0], -found[1] * [1, 1, 1, 1], atol=1e-12)


def styled(seed: int, *, skill: float, bias: float, wordiness: float) -> tuple[Games, np.ndarray]:
    rng = np.random.default_rng(seed)
    questions = 1500
    features = np.stack([np.tanh(rng.normal(wordiness, 0.3, questions)), *(rng.normal(size=(3, questions)) * 0.1)], 1)
    likes = sigmoid(skill + bias * features[:, 0])
    scores = (rng.random((2, questions)) < likes).astype(float).ravel()
    both = Games(questions=[*range(questions)] * 2, scores=scores, weights=np.ones(2 * questions))
    return both, np.tile(features, (2, 1))


def test_style_control_finds_the_win_rate_at_equal_style_where_centring_finds_nothing() -> None:
    played, features = styled(0, skill=-0.3, bias=2.0, wordiness=0.5)
    raw = arena_score(played).value
    truth = float(sigmoid(np.array([-0.3]))[0])
    ours = style_controlled({"m": (played, features)}, resamples=40)
    centred = style_controlled({"m": (played, features)}, resamples=2, center=True)
    assert raw > 0.6
    assert ours.scores["m"].low <= truth <= ours.scores["m"].high
    assert ours.scores["m"].value == pytest.approx(truth, abs=0.05)
    assert centred.scores["m"].value == pytest.approx(raw, abs=0.02)
    assert ours.coefficients["length"] == pytest.approx(2.0 * features[:, 0].std(), abs=0.1)
    assert set(ours.coefficients) == set(FEATURES)


def test_systems_share_the_effect_of_style_and_keep_their_order() -> None:
    plain, wordy = styled(1, skill=0.4, bias=2.0, wordiness=0.0), styled(2, skill=0.0, bias=2.0, wordiness=0.6)
    assert arena_score(wordy[0]).value > arena_score(plain[0]).value
    found = style_controlled({"plain": plain, "wordy": wordy}, resamples=10)
    assert found.scores["plain"].value > found.scores["wordy"].value
    assert found.scores["wordy"].value == pytest.approx(0.5, abs=0.05)


def test_a_system_that_never_loses_has_a_finite_score() -> None:
    features = np.random.default_rng(3).normal(size=(40, 4)) * 0.1
    always = Games(questions=list(range(40)), scores=np.ones(40), weights=np.ones(40))
    assert 0.99 < style_controlled({"m": (always, features)}, resamples=3).scores["m"].value <= 1.0


def test_the_frontier_is_what_no_other_setting_beats() -> None:
    kl, wins = [0.5, 1.0, 1.0, 2.0, 3.0], [0.55, 0.60, 0.58, 0.59, 0.70]
    assert on_frontier(kl, wins).tolist() == [True, True, False, False, True]
    assert on_frontier([1.0, 1.0], [0.6, 0.6]).tolist() == [True, True]
    assert win_rate_at(kl, wins, [0.1, 0.5, 1.5, 9.0]).tolist()[1:] == [0.55, 0.60, 0.70]
    assert np.isnan(win_rate_at(kl, wins, [0.1])).all()
