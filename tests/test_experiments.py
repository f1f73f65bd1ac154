"""The experiments: closed forms against direct optimisation, what exact ones show, and runners in a short form."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inspo_hub.recipe import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
EXPERIMENTS = RECIPES / "experiments"


@contextmanager
def importing(*folders: Path) -> Iterator[None]:
    """Scripts import each other by name; their names stay free for others afterwards."""
    names = {file.stem for folder in folders for file in folder.glob("*.py")}
    hidden = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = before
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


with importing(EXPERIMENTS, RECIPES / "quickstart"):
    tabular: Any = import_module("tabular")
    invariance: Any = import_module("invariance")
    identifiability: Any = import_module("identifiability")
    estimates: Any = import_module("estimates")

KINDS = ("separable", "intransitive", "cyclic")


def search(values: torch.Tensor) -> torch.optim.LBFGS:
    """A direct search that knows nothing of closed forms."""
    return torch.optim.LBFGS(
        [values], max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", list(tabular.LINKS))
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_the_closed_form_is_what_a_direct_search_finds(link: str, beta: float) -> None:
    """Maximises E_y[link(P(y≻y'))] - β·KL(π(·|y')‖ref) over logits, for every y' of every world."""
    worlds = tabular.draw_worlds("intransitive", 3, responses=4)
    utility = torch.from_numpy(tabular.LINKS[link](worlds.preferences).transpose(0, 2, 1).copy())
    reference = torch.from_numpy(worlds.reference)[:, None, :]
    logits = torch.zeros_like(utility, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        policy = logits.softmax(-1)
        kl = (policy * (logits.log_softmax(-1) - reference.log())).sum(-1)
        value = -((policy * utility).sum(-1) - beta * kl).sum()
        value.backward()
        return value

    optimizer.step(loss)
    np.testing.assert_allclose(logits.softmax(-1).detach().numpy(), tabular.inspo_policy(worlds, link, beta), atol=1e-4)


@pytest.mark.parametrize("link", tabular.SMOOTH)
def test_dpos_margins_are_what_a_direct_search_finds(link: str) -> None:
    worlds = tabular.draw_worlds("cyclic", 4, responses=5)
    wins = torch.from_numpy(worlds.preferences)
    comparator = torch.from_numpy(worlds.comparator)
    h = torch.zeros(worlds.reference.shape, dtype=torch.float64, requires_grad=True)
    losses = {
        "logit": torch.nn.functional.softplus,
        "identity": lambda z: (-z - 1) ** 2,
        "exp": torch.exp,
    }
    optimizer = torch.optim.LBFGS(
        [h], max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        z = h[:, :, None] - h[:, None, :]
        each = wins * losses[link](-z) + (1 - wins) * losses[link](z)
        value = (comparator[:, :, None] * comparator[:, None, :] * each).sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = h.detach().numpy()
    np.testing.assert_allclose(tabular.dpo_margins(worlds, link), found - found.mean(axis=1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("link", ["logit", "identity", "exp", "hinge"])
def test_a_margin_loss_is_least_where_its_link_says(link: str) -> None:
    z = np.linspace(-4, 4, 8001)
    for p in (0.1, 0.35, 0.8):
        expected = p * tabular.margin_loss(link, z) + (1 - p) * tabular.margin_loss(link, -z)
        assert z[expected.argmin()] == pytest.approx(tabular.LINKS[link](np.array(p)), abs=2e-3)
    step = 1e-6
    away = np.array([-1.7, 0.3, 2.2])
    slope = (tabular.margin_loss(link, away + step) - tabular.margin_loss(link, away - step)) / (2 * step)
    np.testing.assert_allclose(tabular.margin_loss_slope(link, away), slope, atol=1e-6)


# --- what is invariant, and what is not -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_conditional_argmax_agrees_as_beta_falls_and_hinge_does_not(kind: str) -> None:
    worlds = [tabular.draw_worlds(kind, 40)]
    strict = [invariance.agreement(worlds, "InSPO given y'", tabular.SMOOTH, beta) for beta in (1.0, 0.1, 0.001, 1e-5)]
    assert strict[-1][1] == 1.0
    assert strict[-1][0] < 1e-3
    assert strict[0][1] < 0.95, "at practical β it does depend on the scalarisation"
    assert [same for _, same in strict] == sorted(same for _, same in strict)
    with_hinge = invariance.agreement(worlds, "InSPO given y'", (*tabular.SMOOTH, "hinge"), 1e-5)
    assert with_hinge[1] < 0.95


def test_only_the_conditional_policy_is_free_of_the_comparator_distribution() -> None:
    for kind in ("intransitive", "cyclic"):
        one = tabular.draw_worlds(kind, 40)
        other = invariance._other_comparator(one)
        given = [tabular.inspo_policy(each, "logit", 0.1) for each in (one, other)]
        np.testing.assert_array_equal(*given)
        for policy in ("DPO fit", "InSPO mixture"):
            pair = [invariance.POLICIES[policy](each, "logit", 0.1) for each in (one, other)]
            assert tabular.same_argmax(*pair) < 0.9, policy
    separable = tabular.draw_worlds("separable", 40)
    pair = [tabular.dpo_policy(each, "logit", 0.1) for each in (separable, invariance._other_comparator(separable))]
    np.testing.assert_allclose(*pair, atol=1e-9)


@pytest.mark.parametrize("link", ["logit", "identity", "exp"])
def test_the_sign_of_a_pair_is_exact_at_the_losss_optimum(link: str) -> None:
    worlds = tabular.draw_worlds("intransitive", 10)
    assert identifiability.sign_agreement(worlds, identifiability.fit(worlds, link).policy) == 1.0
    assert identifiability.sign_agreement(worlds, tabular.inspo_policy(worlds, link, 0.3)) < 1.0, "log Z(y') is in it"


def test_one_loss_has_several_optima_and_nothing_is_distilled_without_sharing() -> None:
    worlds = tabular.draw_worlds("intransitive", 10)
    start = 2.0 * np.random.default_rng(0).normal(size=(10, 6, 6))
    near, far = identifiability.fit(worlds), identifiability.fit(worlds, start=start)
    assert near.excess < 1e-4
    assert far.excess < 1e-4
    assert tabular.total_variation(near.policy, far.policy).mean() > 0.2
    assert identifiability.excess_loss(worlds, tabular.inspo_policy(worlds, "logit", 0.3), "logit") > 0.01
    np.testing.assert_allclose(near.plain, worlds.reference)
    shared = identifiability.fit(worlds, share=1.0)
    assert identifiability.value(worlds, shared.plain) > identifiability.value(worlds, worlds.reference) + 0.02


def test_the_descents_gradient_is_the_losss() -> None:
    worlds = tabular.draw_worlds("cyclic", 2, responses=3)
    logits = np.random.default_rng(3).normal(size=(2, 3, 3))

    def loss(table: np.ndarray) -> float:
        policy = tabular.softmax(np.log(worlds.reference)[:, None, :] + table)
        # expected_loss is a mean over the 2·3·2 ordered pairs of different responses; the descent takes their sum.
        return identifiability.expected_loss(worlds, identifiability.margins(worlds, policy), "logit") * 12

    policy = tabular.softmax(np.log(worlds.reference)[:, None, :] + logits)
    found = identifiability._slope(worlds, policy, "logit")
    for index in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = 1e-5
        assert found[index] == pytest.approx((loss(logits + moved) - loss(logits - moved)) / 2e-5, abs=1e-6)


# --- figures over seeds -----------------------------------------------------------------------------------------------


def test_figures_over_seeds_have_the_seeds_error_and_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.binomial(1, p, size=200).astype(float) for p in (0.5, 0.6, 0.7)]
    found = estimates.over_seeds(rows)
    means = [row.mean() for row in rows]
    assert found.value == pytest.approx(np.mean(means))
    assert found.standard_error == pytest.approx(np.std(means, ddof=1) / math.sqrt(3))
    pooled = np.concatenate(rows)
    within = 1.96 * pooled.std() / math.sqrt(len(pooled))
    assert (found.high - found.low) / 2 > within, "seeds differ by more than their prompts explain"
    assert math.isnan(estimates.over_seeds(rows[:1]).standard_error)


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((0.1, 0.1, 0.1), "better"), ((-0.1, -0.1, -0.1), "worse"), ((0.02, 0.02, 0.02), "no difference"),
     ((-0.2, 0.0, 0.3), "no difference")],
)  # fmt: skip
def test_small_or_uncertain_differences_are_called_none(means: tuple[float, ...], verdict: str) -> None:
    assert estimates.over_seeds([np.full(50, mean) for mean in means]).verdict == verdict


# --- recipes and runners ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
def test_variants_of_an_experiment_differ_in_what_it_is_about(name: str) -> None:
    variants = load_recipe(EXPERIMENTS / f"{name}.yaml").variant_recipes()
    about = {"name", "conditioning", "objective", "alternative"}
    dumps = [variant.model_dump(exclude=about) for variant in variants.values()]
    assert all(dump == dumps[0] for dump in dumps)
    assert "dpo" in variants
    assert all(variant.reference.context == "conditioned" for variant in variants.values())


def perform(name: str, tmp_path: Path, seeds: list[int]) -> str:
    with importing(EXPERIMENTS, RECIPES / "quickstart"):
        page: Path = import_module("run").perform(name, tmp_path, seeds, short=True)
    return page.read_text(encoding="utf-8")


def test_exact_experiments_run_by_name(tmp_path: Path) -> None:
    for name in ("invariance", "identifiability"):
        assert "| --- |" in perform(name, tmp_path, [0])
    assert (tmp_path / "invariance.svg").read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.slow
def test_series_run_by_name_and_a_second_time_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    page = perform("conditioning", tmp_path, [0])
    assert page.count("### separable") == page.count("### ") == 1, "a short series has one annotator"
    for variant in ("dpo", "dpo_nll", "symmetric", "stopped", "averaged", "annealed", "one_sided"):
        assert page.count(f"\n| {variant} |") == 1
    weights = sorted((tmp_path / "conditioning").rglob("*/model.safetensors"))
    before = [file.stat().st_mtime_ns for file in weights]
    again = perform("conditioning", tmp_path, [0])
    assert again.splitlines()[:-1] == page.splitlines()[:-1], "all but the time it took"
    assert [file.stat().st_mtime_ns for file in weights] == before
    given = perform("novel_alternatives", tmp_path, [0])  # of the same models
    assert given.count("\n| an answer with everything wrong |") == 2, "quality, and well-formed answers"


@pytest.mark.slow
def test_overhead_runs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    page = perform("overhead", tmp_path, [0])
    rows = {line.split(" | ")[0]: line.split(" | ") for line in page.splitlines() if line.startswith("| ")}
    tokens = {name: float(rows[f"| {name}"][1]) for name in ("dpo", "symmetric", "averaged")}
    assert tokens["symmetric"] == tokens["averaged"] > 1.5 * tokens["dpo"]
    assert all(rows[f"| {name}"][6].startswith("none") for name in tokens), "the checkpoint's format is the base's"


def test_the_perfect_answer_is_perfect_and_the_wrong_one_has_nothing_right() -> None:
    with importing(EXPERIMENTS, RECIPES / "quickstart"):
        novel: Any = import_module("novel_alternatives")
        judge: Any = import_module("judge")
        for question in (
            "What is the owl like? Answer for a child. Be brief.",
            "Describe the crab for a report. Tell me more.",
        ):
            assert judge.score(question, novel.perfect(question, right=True)) == judge.MAX_QUALITY
            assert judge.score(question, novel.perfect(question, right=False)) == 0.0
