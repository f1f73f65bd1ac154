"""The regression against scikit-learn, the metric against what AlpacaEval published, and truth that is known."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.evaluate.alpaca_eval import (
    DIFFICULTY,
    GAMED,
    OUTPUTS,
    AlpacaEval,
    TablesSource,
    leaderboard_row,
    load_alpaca_eval,
    score_rows,
)
from inspo_hub.evaluate.length_control import (
    CHOICES,
    FIXED_STRENGTH,
    GamedRows,
    length_controlled,
    length_controlled_difference,
    length_controlled_estimate,
)
from inspo_hub.evaluate.logistic import Floats, l1_logistic, sigmoid
from inspo_hub.hub import bytes_hash
from tests.hub_server import HubServer

DATA = Path(__file__).parents[3] / "shared" / "data" / "alpaca_eval"
published = pytest.mark.skipif(not DATA.is_dir(), reason=f"no published annotations at {DATA}")


# --- the regression


def sklearn_l1(features: Floats, targets: Floats, weights: Floats, strength: float) -> Floats:
    """Every row twice, as 1 and as 0, in the solver that AlpacaEval uses, run to a tight tolerance."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=100_000, random_state=0
    )
    labels = np.repeat([1, 0], len(targets))
    twice = np.concatenate([weights * targets, weights * (1 - targets)])
    coefficients: Floats = model.fit(np.tile(features, (2, 1)), labels, sample_weight=twice).coef_[0]
    return coefficients


@pytest.mark.parametrize("strength", [1e-3, 0.05, 1.0, 2.78, 1e3])
def test_the_solver_agrees_with_scikit_learn(strength: float) -> None:
    rng = np.random.default_rng(int(strength * 1000))
    features = rng.normal(size=(300, 4)) * [1.0, 0.3, 2.0, 1.0]
    targets = np.clip(sigmoid(features @ [1.0, -2.0, 0.0, 0.1]) + 0.1 * rng.normal(size=300), 0, 1)
    weights = rng.uniform(0.1, 2.0, size=300)
    ours = l1_logistic(features, targets, weights, strength=strength)
    np.testing.assert_allclose(ours, sklearn_l1(features, targets, weights, strength), atol=2e-5)
    np.testing.assert_allclose(l1_logistic(features, targets, weights, strength=strength, start=-ours), ours, atol=1e-7)


def test_a_strong_penalty_leaves_exactly_nothing_and_a_separable_problem_stays_finite() -> None:
    features = np.array([[1.0, 0.2], [2.0, -0.1], [-1.0, 0.3], [-2.0, 0.0]])
    assert l1_logistic(features, np.array([1.0, 1, 0, 0]), strength=1e-3).tolist() == [0.0, 0.0]
    assert np.isfinite(l1_logistic(features, np.array([1.0, 1, 0, 0]), penalty=1e-6)).all()


# --- what AlpacaEval published


def rows_of(name: str) -> list[dict[str, str]]:
    with gzip.open(DATA / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


@pytest.fixture(scope="module")
def alpaca() -> dict[str, Any]:
    gamed, annotations = rows_of("gamed_baselines"), rows_of("annotations")
    models = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))["models"]
    return {
        "models": models,
        "rows": {name: [row for row in annotations if row["model"] == name] for name in models},
        "difficulty": column(rows_of("instructions"), "instruction_difficulty"),
        "gamed": GamedRows(
            length_difference=column(gamed, "std_delta_len"),
            difficulty=column(gamed, "instruction_difficulty"),
            preference=column(gamed, "preference"),
        ),
    }


@published
def test_all_published_models_within_the_tolerances_of_the_data(alpaca: dict[str, Any]) -> None:
    assert len(alpaca["models"]) == 12
    for name, expected in alpaca["models"].items():
        rows = alpaca["rows"][name]
        given = (column(rows, "preference") - 1, column(rows, "len_2"), column(rows, "len_1"))
        tables = (alpaca["difficulty"], alpaca["gamed"])
        nearest = min(CHOICES, key=lambda choice, c=expected["C_implied"]: abs(np.log(choice / c)))
        at_published = score_rows(*given, *tables, strength=float(nearest))
        lc = expected["length_controlled_winrate"]
        assert at_published.length_controlled_winrate == pytest.approx(lc, abs=0.14 if name == "NullModel" else 0.02)
        fixed = score_rows(*given, *tables, strength=FIXED_STRENGTH)
        assert fixed.length_controlled_winrate == pytest.approx(lc, abs=0.10), name
        chosen = score_rows(*given, *tables)
        assert chosen.length_controlled_winrate == pytest.approx(lc, abs=0.16), name
        assert chosen.fit is not None
        for key in ("win_rate", "standard_error", "discrete_win_rate"):
            assert getattr(chosen, key) == pytest.approx(expected[key], abs=1e-6), (name, key)
        for key in ("n_wins", "n_wins_base", "n_draws", "n_total"):
            assert getattr(chosen, key) == expected[key], (name, key)
        if expected["lc_standard_error"] is not None:
            assert chosen.lc_standard_error == pytest.approx(expected["lc_standard_error"], abs=0.001), name
        if name not in ("NullModel", "gpt4_gamed"):
            assert at_published.fit is not None
            np.testing.assert_allclose(at_published.fit.weights, expected["glm_weights"], atol=1e-3)


@published
def test_the_bootstrap_error_is_about_twice_the_published_one(alpaca: dict[str, Any]) -> None:
    name = "FuseChat-Llama-3.1-8B-Instruct"
    rows = alpaca["rows"][name]
    given = (column(rows, "preference") - 1, column(rows, "len_2"), column(rows, "len_1"))
    tables = {"difficulty": alpaca["difficulty"], "gamed": alpaca["gamed"]}
    estimate = length_controlled_estimate(*given, resamples=100, **tables)
    assert estimate is not None
    assert 0.9 < 100 * estimate.standard_error < 1.6
    assert alpaca["models"][name]["lc_standard_error"] < 0.7
    other = alpaca["rows"]["FuseChat-Qwen-2.5-7B-Instruct"]
    second = (column(other, "preference") - 1, column(other, "len_2"))
    paired = length_controlled_difference(given[:2], second, given[2], resamples=100, **tables)
    assert paired is not None
    assert 100 * paired.value == pytest.approx(65.39 - 63.58, abs=0.15)
    assert 1.0 < 100 * paired.standard_error < 1.9


# --- truth that is known


def judged(rng: np.random.Generator, rows: int, *, length_bias: float, skill: float) -> tuple[Floats, Floats, Floats]:
    """Preferences of a judge that likes length, for a system that writes more than its opponent."""
    lengths, opponent = rng.gamma(9, 200, rows), rng.gamma(9, 100, rows)
    gap = opponent - lengths
    return sigmoid(skill - length_bias * np.tanh(gap / gap.std(ddof=1))), lengths, opponent


def test_length_is_taken_out_of_a_judge_that_likes_it() -> None:
    q, lengths, opponent = judged(np.random.default_rng(0), 2000, length_bias=1.5, skill=-0.2)
    found = length_controlled(q, lengths, opponent, strength=1e4)
    assert found is not None
    assert q.mean() > 0.65
    assert found.value == pytest.approx(sigmoid(np.array([-0.2]))[0], abs=0.002)
    np.testing.assert_allclose(found.weights, [-1.5, -0.2], atol=0.01)


def test_failed_rows_are_left_out_and_not_counted_as_ties() -> None:
    q, lengths, opponent = judged(np.random.default_rng(1), 400, length_bias=1.0, skill=1.0)
    some = np.arange(400) % 7 == 0
    with_failures = length_controlled(np.where(some, np.nan, q), lengths, opponent)
    without = length_controlled(q[~some], lengths[~some], opponent[~some])
    assert with_failures is not None
    assert without is not None
    assert with_failures.value == without.value
    assert with_failures.rows == 400 - some.sum()


def test_where_all_answers_are_as_long_there_is_nothing_to_control() -> None:
    assert length_controlled([0.2, 0.9, 1.0], [10, 20, 30], [10, 20, 30]) is None
    assert length_controlled_estimate([0.2, 0.9, 1.0], [10, 20, 30], [10, 20, 30]) is None


def test_rows_of_one_prompt_are_resampled_together() -> None:
    q, lengths, opponent = judged(np.random.default_rng(2), 150, length_bias=1.0, skill=0.3)
    noisy = np.clip(q + np.random.default_rng(3).normal(size=150) * 0.3, 0, 1)
    once = length_controlled_estimate(noisy, lengths, opponent, resamples=60)
    thrice = length_controlled_estimate(
        *(np.repeat(each, 3) for each in (noisy, lengths, opponent)),
        np.repeat(np.arange(150), 3).tolist(),
        resamples=60,
    )
    assert once is not None
    assert thrice is not None
    assert thrice.clusters == 150
    assert thrice.standard_error == pytest.approx(once.standard_error, rel=0.05)


def test_a_system_differs_from_itself_by_nothing() -> None:
    q, lengths, opponent = judged(np.random.default_rng(4), 120, length_bias=1.0, skill=0.3)
    found = length_controlled_difference((q, lengths), (q, lengths), opponent, resamples=20)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


# --- the tables from the Hub


def small_tables() -> dict[str, bytes]:
    outputs = [{"instruction": f"Do {i}", "output": "o" * (10 + i), "generator": "g", "dataset": "d"} for i in range(6)]
    gamed = ["model,index,std_delta_len,instruction_difficulty,not_gamed_baseline,preference"]
    gamed += [
        f"{m},{i},{s},{i / 10},False,0.{3 + i}" for m, s in (("verbose", -1.0), ("concise", 1.0)) for i in range(6)
    ]
    return {
        OUTPUTS: json.dumps(outputs).encode(),
        DIFFICULTY: "\n".join([",instruction_difficulty", *(f"{i},{i / 10}" for i in range(6))]).encode(),
        GAMED: "\n".join(gamed).encode(),
    }


@pytest.fixture
def tables_source(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TablesSource]:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "inspo_cache"))

    def make(**changed: bytes) -> TablesSource:
        repo = hub.unique("alpaca_eval", "bob")
        files = small_tables()
        hub.create_repo(repo, files | changed, type="dataset")
        hashes = {name: bytes_hash(content).sha256 for name, content in files.items()}
        return TablesSource(id=repo, revision=hub.head(repo, type="dataset"), sha256=hashes)

    return make


def test_tables_come_pinned_from_the_hub_and_are_keyed_by_instruction(tables_source: Any) -> None:
    tables: AlpacaEval = load_alpaca_eval(tables_source())
    assert tables.instructions[2] == "Do 2"
    assert tables.difficulty(["Do 5", "Do 1"]).tolist() == [0.5, 0.1]
    assert tables.difficulty(["Do 5", "Do 1"], key="position").tolist() == [0.0, 0.1]
    with pytest.raises(DataError, match="'Do it' is no instruction of AlpacaEval"):
        tables.difficulty(["Do it"])
    annotations = [
        {"instruction": f"Do {i}", "output_1": "o" * (10 + i), "output_2": "x" * (20 - i), "preference": p}
        for i, p in ((0, 1.2), (1, None), (2, 2.0), (3, 0), (5, 1.9))
    ]
    row = leaderboard_row(annotations, tables, strength=10.0)
    assert (row.n_wins, row.n_wins_base, row.n_draws, row.n_total) == (2, 1, 1, 4)
    assert row.win_rate == pytest.approx(100 * np.mean([0.2, 1.0, 0.5, 0.9]))
    by_place = leaderboard_row(annotations, tables, strength=10.0, key="position")
    assert by_place.length_controlled_winrate != row.length_controlled_winrate


def test_other_tables_than_the_metrics_own_are_refused(tables_source: Any) -> None:
    changed = small_tables()[DIFFICULTY].replace(b"0.5", b"0.7")
    with pytest.raises(
        ResolutionError, match=r"instruction_difficulty.csv has SHA-256[\s\S]*other tables make another"
    ):
        load_alpaca_eval(tables_source(**{DIFFICULTY: changed}))
