"""Objectives under every conditioning: values, gradients and direction, against formulas written out in float64."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from inspo_hub.conditioning import CONDITIONINGS, Conditioning, ReferenceContext
from inspo_hub.objectives import OBJECTIVES, Objective
from inspo_hub.objectives.base import log_odds
from inspo_hub.views import SCORES, ResponseView, Score, TreeLogps, View

PAIRS = 6

# --- the oracle: each formula as the papers write it, in plain torch ------------------------------------------------


def ls(v: Tensor) -> Tensor:
    return -torch.log1p(torch.exp(-v))


def sig(v: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-v))


def odds(logp: Tensor, n: Tensor) -> Tensor:
    p = torch.exp(logp / n)
    return torch.log(p / (1 - p))


def sorted_margins(w: Tensor, y: Tensor, rw: Tensor, ry: Tensor) -> Tensor:
    """By pair: how far a policy margin is from the reference margin of the same rank."""
    policy, reference = w - y, sorted((rw - ry).tolist())
    ranks = [sorted(policy.tolist()).index(value) for value in policy.tolist()]
    return torch.stack([value - reference[rank] for value, rank in zip(policy, ranks, strict=True)])


# w wins and y loses, rw and ry are the same in the reference: log-probabilities. nw, ny: lengths. p: the recipe's
# parameters. plain: log π(y_w|x).
Formula = Callable[..., Tensor]
FORMULAS: dict[str, Formula] = {
    "dpo": lambda w, y, rw, ry, nw, ny, p, plain: (
        -(1 - p["label_smoothing"]) * ls(p["beta"] * (w - rw - y + ry))
        - p["label_smoothing"] * ls(-p["beta"] * (w - rw - y + ry))
    ),
    "robust": lambda w, y, rw, ry, nw, ny, p, plain: (
        (
            -(1 - p["label_smoothing"]) * ls(p["beta"] * (w - rw - y + ry))
            + p["label_smoothing"] * ls(-p["beta"] * (w - rw - y + ry))
        )
        / (1 - 2 * p["label_smoothing"])
    ),
    "ipo": lambda w, y, rw, ry, nw, ny, p, plain: (
        ((w - rw) / nw - (y - ry) / ny - 1 / (2 * p["beta"])) ** 2
        if p["length_normalized"]
        else ((w - rw) - (y - ry) - 1 / (2 * p["beta"])) ** 2
    ),
    "hinge": lambda w, y, rw, ry, nw, ny, p, plain: torch.clamp(1 - p["beta"] * (w - rw - y + ry), min=0),
    "simpo": lambda w, y, rw, ry, nw, ny, p, plain: -ls(p["beta"] / nw * w - p["beta"] / ny * y - p["gamma"]),
    "rdpo": lambda w, y, rw, ry, nw, ny, p, plain: -ls(p["beta"] * (w - rw - y + ry) + p["alpha"] * (nw - ny)),
    "orpo": lambda w, y, rw, ry, nw, ny, p, plain: -plain / nw - p["odds_weight"] * ls(odds(w, nw) - odds(y, ny)),
    "cpo": lambda w, y, rw, ry, nw, ny, p, plain: (
        -(1 - p["label_smoothing"]) * ls(p["beta"] * (w - y)) - p["label_smoothing"] * ls(p["beta"] * (y - w))
    ),
    "sigmoid_norm": lambda w, y, rw, ry, nw, ny, p, plain: (
        -(1 - p["label_smoothing"]) * ls(p["beta"] * ((w - rw) / nw - (y - ry) / ny))
        - p["label_smoothing"] * ls(p["beta"] * ((y - ry) / ny - (w - rw) / nw))
    ),
    "exo_pair": lambda w, y, rw, ry, nw, ny, p, plain: sum(
        # KL of the policy's two-way choice from the smoothed label
        torch.softmax(p["beta"] * torch.stack([w - rw, y - ry]), dim=0)[side]
        * (
            torch.log_softmax(p["beta"] * torch.stack([w - rw, y - ry]), dim=0)[side]
            - math.log([1 - p["label_smoothing"], p["label_smoothing"]][side])
        )
        for side in (0, 1)
    ),
    "nca_pair": lambda w, y, rw, ry, nw, ny, p, plain: (
        -ls(p["beta"] * (w - rw)) - 0.5 * ls(-p["beta"] * (w - rw)) - 0.5 * ls(-p["beta"] * (y - ry))
    ),
    "bco_pair": lambda w, y, rw, ry, nw, ny, p, plain: -ls(p["beta"] * (w - rw)) - ls(-p["beta"] * (y - ry)),
    "sppo_hard": lambda w, y, rw, ry, nw, ny, p, plain: (
        (w - rw - 1 / p["beta"] * (1 - 0.5)) ** 2 + (y - ry - 1 / p["beta"] * (0 - 0.5)) ** 2
    ),
    "apo_zero": lambda w, y, rw, ry, nw, ny, p, plain: 1 - sig(p["beta"] * (w - rw)) + sig(p["beta"] * (y - ry)),
    "apo_down": lambda w, y, rw, ry, nw, ny, p, plain: (
        sig(p["beta"] * (w - rw)) + 1 - sig(p["beta"] * (w - rw - y + ry))
    ),
    "discopop": lambda w, y, rw, ry, nw, ny, p, plain: (
        (1 - sig(p["beta"] * (w - rw - y + ry) / p["tau"])) * -ls(p["beta"] * (w - rw - y + ry))
        + sig(p["beta"] * (w - rw - y + ry) / p["tau"]) * torch.exp(-p["beta"] * (w - rw - y + ry))
    ),
    "aot": lambda w, y, rw, ry, nw, ny, p, plain: (
        -(1 - p["label_smoothing"]) * ls(p["beta"] * sorted_margins(w, y, rw, ry))
        - p["label_smoothing"] * ls(-p["beta"] * sorted_margins(w, y, rw, ry))
    ),
}

# (weight, score of the chosen response, score of the rejected one), at half of the training
MIXTURES: dict[str, list[tuple[float, Score | None, Score]]] = {
    "none": [(1.0, "chosen", "rejected")],
    "one_sided": [(1.0, "chosen_given_rejected", "rejected")],
    "symmetric": [(1.0, "chosen_given_rejected", "rejected_given_chosen")],
    "averaged": [(0.5, "chosen_given_rejected", "rejected_given_chosen"), (0.5, "chosen", "rejected")],
    "annealed": [(0.75, "chosen_given_rejected", "rejected_given_chosen"), (0.25, "chosen", "rejected")],
    "rejected_only": [(1.0, None, "rejected_given_chosen")],
}
CONDITIONING_PARAMETERS: dict[str, dict[str, float]] = {"annealed": {"start": 0.1, "end": 0.4}}

# Every objective at its defaults, and with every switch moved.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in OBJECTIVES} | {
    "cdpo": ("dpo", {"label_smoothing": 0.2, "beta": 0.5}),
    "robust .3": ("robust", {"label_smoothing": 0.3, "beta": 0.4}),
    "ipo summed": ("ipo", {"length_normalized": False}),
    "ipo .5": ("ipo", {"beta": 0.5}),
    "simpo gamma": ("simpo", {"beta": 2.5, "gamma": 0.25}),
    "rdpo .3": ("rdpo", {"alpha": 0.3}),
    "cpo smoothed": ("cpo", {"label_smoothing": 0.1, "nll_weight": 0.0}),
    "sigmoid_norm smoothed": ("sigmoid_norm", {"label_smoothing": 0.1}),
    "exo .1": ("exo_pair", {"label_smoothing": 0.1}),
    "sppo .5": ("sppo_hard", {"beta": 0.5}),
    "discopop wide": ("discopop", {"tau": 1.0, "beta": 0.3}),
    "aot smoothed": ("aot", {"label_smoothing": 0.1, "beta": 0.7}),
    "dpo + nll": ("dpo", {"nll_weight": 0.3}),
    "orpo + nll": ("orpo", {"nll_weight": 0.3, "odds_weight": 0.5}),
}


def build(variant: str) -> Objective:
    name, parameters = VARIANTS[variant]
    return OBJECTIVES[name](**parameters)


def conditioning_of(name: str) -> Conditioning:
    return CONDITIONINGS[name](**CONDITIONING_PARAMETERS.get(name, {}))  # type: ignore[arg-type]


def allowed(objective: Objective, conditioning: Conditioning) -> bool:
    return not conditioning.refusal(reference_context="conditioned", uses_reference=objective.uses_reference)


GRID = [
    (variant, name)
    for variant, name in itertools.product(VARIANTS, CONDITIONINGS)
    if allowed(build(variant), conditioning_of(name))
]


class Pairs:
    """Pairs with all eight scores; `spread` says how far the policy is from its reference, as a logarithm."""

    def __init__(self, seed: int = 0, *, spread: float = 0.8) -> None:
        draw = torch.Generator().manual_seed(seed)

        def rand() -> Tensor:
            return torch.rand(PAIRS, generator=draw, dtype=torch.float64)

        self.nw = torch.randint(2, 30, (PAIRS,), generator=draw)
        self.nl = torch.randint(2, 30, (PAIRS,), generator=draw)
        self.reference: dict[Score, Tensor] = {
            score: -(self.nw if score.startswith("chosen") else self.nl) * (0.3 + 2 * rand()) for score in SCORES
        }
        self.policy: dict[Score, Tensor] = {
            score: value * torch.exp(spread * (2 * rand() - 1)) for score, value in self.reference.items()
        }

    def ours(
        self,
        objective: Objective,
        conditioning: Conditioning,
        *,
        policy: dict[Score, Tensor] | None = None,
        rows: list[int] | slice = slice(None),
        context: ReferenceContext = "conditioned",
        progress: float = 0.5,
    ) -> Tensor:
        policy = policy or self.policy
        reference = TreeLogps(**{score: value[rows] for score, value in self.reference.items()})
        views = conditioning.views(
            TreeLogps(**{score: value[rows] for score, value in policy.items()}),
            reference if objective.uses_reference else None,
            chosen_lengths=self.nw[rows],
            rejected_lengths=self.nl[rows],
            reference_context=context,
            progress=progress,
            with_plain_chosen=objective.needs_plain_chosen,
        )
        return torch.stack([weight * objective.pair_losses(view) for weight, view in views]).sum(dim=0)

    def oracle(
        self,
        objective: Objective,
        mixture: list[tuple[float, Score | None, Score]],
        *,
        policy: dict[Score, Tensor],
        context: ReferenceContext = "conditioned",
    ) -> Tensor:
        parameters = objective.model_dump()
        plain = {"chosen_given_rejected": "chosen", "rejected_given_chosen": "rejected"}
        zero = torch.zeros(len(self.nw), dtype=torch.float64)
        terms = []
        for weight, chosen, rejected in mixture:
            known = [
                score if context == "conditioned" or score is None else plain.get(score, score)
                for score in (chosen, rejected)
            ]
            terms.append(
                weight
                * FORMULAS[parameters["name"]](
                    zero if chosen is None else policy[chosen],
                    policy[rejected],
                    zero if known[0] is None else self.reference[known[0]],
                    self.reference[known[1]],
                    self.nw.double(),
                    self.nl.double(),
                    parameters,
                    policy["chosen"],
                )
            )
        return torch.stack(terms).sum(dim=0) + parameters["nll_weight"] * -policy["chosen"] / self.nw


def leaves(policy: dict[Score, Tensor]) -> dict[Score, Tensor]:
    return {score: value.detach().clone().requires_grad_() for score, value in policy.items()}


def gradients(losses: Tensor, policy: dict[Score, Tensor]) -> dict[Score, Tensor]:
    found = torch.autograd.grad(losses.sum(), list(policy.values()), allow_unused=True)
    return {
        score: torch.zeros_like(policy[score]) if gradient is None else gradient
        for score, gradient in zip(policy, found, strict=True)
    }


# --- value and gradient ----------------------------------------------------------------------------------------------


def test_the_oracle_has_a_formula_for_every_row() -> None:
    assert set(FORMULAS) == set(OBJECTIVES)
    assert set(MIXTURES) == set(CONDITIONINGS)


@pytest.mark.parametrize("context", ["plain", "conditioned"])
@pytest.mark.parametrize(("variant", "conditioning"), GRID)
def test_values_and_gradients_are_those_of_the_formulas(
    variant: str, conditioning: str, context: ReferenceContext
) -> None:
    objective, pairs = build(variant), Pairs()
    mine, theirs = leaves(pairs.policy), leaves(pairs.policy)
    losses = pairs.ours(objective, conditioning_of(conditioning), policy=mine, context=context)
    expected = pairs.oracle(objective, MIXTURES[conditioning], policy=theirs, context=context)
    assert losses.shape == (PAIRS,)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-11)
    slope = gradients(losses, mine)
    needed = conditioning_of(conditioning).needed_scores(with_plain_chosen=objective.needs_plain_chosen)
    for score, gradient in gradients(expected, theirs).items():
        torch.testing.assert_close(slope[score], gradient, rtol=1e-8, atol=1e-11)
        assert score in needed or not gradient.any(), f"{score} gets a gradient that nobody computes"


@pytest.mark.parametrize(("variant", "conditioning"), [cell for cell in GRID if "none" in cell or "dpo" in cell])
def test_gradients_are_those_of_finite_differences(variant: str, conditioning: str) -> None:
    objective, pairs = build(variant), Pairs(seed=1)
    policy = leaves(pairs.policy)

    def losses(*scores: Tensor) -> Tensor:
        return pairs.ours(objective, conditioning_of(conditioning), policy=dict(zip(policy, scores, strict=True)))

    assert torch.autograd.gradcheck(losses, tuple(policy.values()), eps=1e-6, atol=1e-6, rtol=1e-5)


# --- direction -------------------------------------------------------------------------------------------------------


def start_of(objective: Objective, seed: int) -> Pairs:
    """Where training starts: policy near reference, and outside of what reverses an objective by design."""
    pairs = Pairs(seed, spread=0.01)
    if isinstance(objective, OBJECTIVES["discopop"]):  # reversed around margin 0, as published
        offset = (4 if seed % 2 else -4) * objective.tau / objective.beta  # type: ignore[attr-defined]
        pairs.policy = {
            score: value + (offset if score.startswith("chosen") else -offset)
            for score, value in pairs.reference.items()
        }
    elif not objective.uses_reference:  # with label smoothing the margin is meant to stay finite: start at a small one
        pairs.policy = {score: -10 + 0.1 * (value / value.min()) for score, value in pairs.policy.items()}
    return pairs


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("variant", "conditioning"), [cell for cell in GRID if cell[1] != "rejected_only"])
def test_a_gradient_step_raises_the_margin_of_chosen_over_rejected(variant: str, conditioning: str, seed: int) -> None:
    objective = build(variant)
    pairs = start_of(objective, seed)
    policy = leaves(pairs.policy)
    views = conditioning_of(conditioning).views(
        TreeLogps(**policy),
        TreeLogps(**pairs.reference) if objective.uses_reference else None,
        chosen_lengths=pairs.nw,
        rejected_lengths=pairs.nl,
        reference_context="conditioned",
        progress=0.5,
        with_plain_chosen=objective.needs_plain_chosen,
    )
    # Without the added NLL, which pulls at the chosen response whatever the preference term does.
    losses = torch.stack([weight * objective.preference_losses(view) for weight, view in views]).sum(dim=0)
    slope = gradients(losses, policy)
    for _, chosen, rejected in MIXTURES[conditioning]:
        assert chosen is not None
        step_chosen, step_rejected = -slope[chosen], -slope[rejected]
        assert (step_chosen - step_rejected > 0).all(), f"{chosen} against {rejected}"
        if objective.name != "apo_down":  # which lowers both, the rejected one more
            assert (step_chosen > 0).all(), f"{chosen} falls"
        assert (step_rejected < 0).all(), f"{rejected} rises"


def test_a_gradient_step_of_rejected_only_lowers_the_rejected_response_and_nothing_else() -> None:
    for name, objective in ((name, objective()) for name, objective in OBJECTIVES.items()):  # type: ignore[call-arg]
        if not objective.uses_reference or name == "discopop":
            continue
        pairs = start_of(objective, 0)
        policy = leaves(pairs.policy)
        slope = gradients(pairs.ours(objective, CONDITIONINGS["rejected_only"](), policy=policy), policy)  # type: ignore[call-arg]
        assert (slope["rejected_given_chosen"] > 0).all(), name
        assert not any(slope[score].any() for score in SCORES if score != "rejected_given_chosen"), name


# As published, discopop has a minimum on the wrong side of 0: see the test below.
@pytest.mark.parametrize("variant", [variant for variant, (name, _) in VARIANTS.items() if name != "discopop"])
def test_descending_the_loss_ends_with_chosen_above_rejected(variant: str) -> None:
    # Not only the first step: plain gradient descent from the reference, far enough for squared losses to turn around.
    objective, pairs = build(variant), Pairs(seed=2, spread=0.01)
    policy = leaves(pairs.policy)
    optimizer = torch.optim.Adam(policy.values(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        pairs.ours(objective, CONDITIONINGS["symmetric"](), policy=policy).sum().backward()  # type: ignore[call-arg]
        optimizer.step()
        with torch.no_grad():
            for value in policy.values():
                value.clamp_(max=-1e-6)
    moved = {score: policy[score].detach() - pairs.reference[score] for score in SCORES}
    assert (moved["chosen_given_rejected"] > moved["rejected_given_chosen"]).all()


def test_discopop_lowers_margins_near_zero_as_published() -> None:
    # Local extrema at -2.37 τ and 1.44 τ, as the authors report: what a user is cautioned about.
    objective = OBJECTIVES["discopop"]()  # type: ignore[call-arg]
    assert "discopop" in objective.caution
    z = torch.linspace(-0.3, 0.3, 6001, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(len(z), dtype=torch.int64)
    view = View(
        chosen=ResponseView(logps=z / 0.05, reference_logps=torch.zeros_like(z), lengths=ones),
        rejected=ResponseView(logps=torch.zeros_like(z), reference_logps=torch.zeros_like(z), lengths=ones),
    )
    (slope,) = torch.autograd.grad(objective.pair_losses(view).sum(), z)
    reversed_at = z.detach()[slope > 0] / 0.05
    assert reversed_at.min() == pytest.approx(-2.37, abs=0.02)
    assert reversed_at.max() == pytest.approx(1.44, abs=0.02)


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "conditioning"), GRID)
def test_permuting_the_pairs_permutes_the_losses(variant: str, conditioning: str) -> None:
    objective, pairs = build(variant), Pairs(seed=3)
    order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(0)).tolist()
    losses = pairs.ours(objective, conditioning_of(conditioning))
    torch.testing.assert_close(pairs.ours(objective, conditioning_of(conditioning), rows=order), losses[order])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_separable_means_that_a_loss_does_not_depend_on_the_other_pairs(name: str) -> None:
    objective, pairs = build(name), Pairs(seed=4)
    assert pairs.policy["chosen"].sub(pairs.policy["rejected"]).argsort().tolist() != list(range(PAIRS))
    conditioning = CONDITIONINGS["averaged"]()  # type: ignore[call-arg]
    alone = torch.cat([pairs.ours(objective, conditioning, rows=[row]) for row in range(PAIRS)])
    assert torch.allclose(alone, pairs.ours(objective, conditioning)) == objective.separable


def test_aot_gives_each_pair_the_loss_of_its_rank() -> None:
    objective, nothing = OBJECTIVES["aot"](beta=1.0), torch.zeros(3)  # type: ignore[call-arg]
    lengths = torch.ones(3, dtype=torch.int64)
    view = View(
        chosen=ResponseView(
            logps=torch.tensor([3.0, 1.0, 2.0]), reference_logps=torch.tensor([0.0, 5.0, 1.0]), lengths=lengths
        ),
        rejected=ResponseView(logps=nothing, reference_logps=nothing, lengths=lengths),
    )
    gaps = torch.tensor([3.0 - 5.0, 1.0 - 0.0, 2.0 - 1.0])
    torch.testing.assert_close(objective.pair_losses(view), -torch.nn.functional.logsigmoid(gaps))


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_extreme_scores_give_finite_losses_and_gradients(variant: str) -> None:
    objective = build(variant)
    extremes = torch.tensor([0.0, -1e-30, -1e-8, -1e-3, -1.0, -1e2, -1e4, -1e6])
    grid = torch.cartesian_prod(extremes, extremes)
    for length in (1, 3, 20_000):
        lengths = torch.full((len(grid),), length)
        chosen, rejected = (grid[:, side].clone().requires_grad_() for side in (0, 1))
        view = View(
            chosen=ResponseView(logps=chosen, reference_logps=grid[:, 1].flip(0), lengths=lengths),
            rejected=ResponseView(logps=rejected, reference_logps=grid[:, 0].flip(0), lengths=lengths),
            plain_chosen_logps=chosen,
        )
        losses = objective.pair_losses(view)
        assert losses.dtype == torch.float32
        assert losses.isfinite().all(), grid[~losses.isfinite()]
        losses.sum().backward()
        for leaf in (chosen, rejected):
            assert leaf.grad is not None
            assert leaf.grad.isfinite().all(), grid[~leaf.grad.isfinite()]


def test_log_odds_are_exact_near_zero_and_near_one() -> None:
    logps = torch.cat([-torch.logspace(-6, 3, 200, dtype=torch.float64), torch.tensor([-math.log(2.0)])])
    exact = [value - math.log(-math.expm1(value)) for value in logps.tolist()]
    torch.testing.assert_close(log_odds(logps), torch.tensor(exact, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_odds(logps.float()).double(), log_odds(logps), rtol=1e-5, atol=1e-5)


def test_log_odds_at_certainty_still_have_a_gradient() -> None:
    logps = torch.tensor([0.0, -1e-20, -1e-7], requires_grad=True)
    log_odds(logps).sum().backward()
    assert logps.grad is not None
    assert (logps.grad[1:] > 1).all()
    assert logps.grad.isfinite().all()


# --- faults that other code has shipped ------------------------------------------------------------------------------


def test_simpo_runs_under_every_conditioning_that_may_use_it() -> None:
    # A trainer of the method's released code called its helper with too few arguments: an error on the first batch.
    objective, pairs = OBJECTIVES["simpo"](), Pairs()  # type: ignore[call-arg]
    names = [name for name in CONDITIONINGS if allowed(objective, conditioning_of(name))]
    assert names == ["none", "symmetric", "averaged", "annealed"]
    for name in names:
        assert pairs.ours(objective, conditioning_of(name)).isfinite().all()


# One pair has one rank: aot's references are covered by the values above.
@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.uses_reference and row.separable])
def test_the_references_of_chosen_and_rejected_are_not_swapped(name: str) -> None:
    # Seen twice in released code: the reference tuple arrived as (rejected, chosen).
    objective, lengths = build(name), torch.tensor([4])

    def loss(reference_chosen: float, reference_rejected: float) -> Tensor:
        logps = torch.tensor([-8.0], dtype=torch.float64)
        chosen, rejected = (
            torch.tensor([value], dtype=torch.float64) for value in (reference_chosen, reference_rejected)
        )
        return objective.pair_losses(
            View(
                chosen=ResponseView(logps=logps, reference_logps=chosen, lengths=lengths),
                rejected=ResponseView(logps=logps, reference_logps=rejected, lengths=lengths),
            )
        )

    # The reference finds chosen unlikely: the policy's log-ratio of chosen is high, so it is nearly right already.
    assert loss(-12.0, -4.0) < loss(-4.0, -12.0)


def test_ipo_is_least_where_chosen_is_above_rejected_by_half_over_beta() -> None:
    # Released code squares (margin of rejected over chosen - target): its minimum prefers the rejected answer.
    objective, lengths = OBJECTIVES["ipo"](beta=0.25), torch.tensor([10])  # type: ignore[call-arg]
    margin = torch.linspace(-5, 5, 101, dtype=torch.float64)
    losses = [
        objective.pair_losses(
            View(
                chosen=ResponseView(
                    logps=-20 + 10 * value[None], reference_logps=torch.tensor([-20.0]), lengths=lengths
                ),
                rejected=ResponseView(
                    logps=torch.tensor([-9.0]), reference_logps=torch.tensor([-9.0]), lengths=lengths
                ),
            )
        ).item()
        for value in margin
    ]
    assert margin[losses.index(min(losses))].item() == pytest.approx(2.0)


@pytest.mark.parametrize("conditioning", ["none", "symmetric", "averaged"])
def test_orpo_s_pair_term_alone_pulls_to_the_chosen_response(conditioning: str) -> None:
    # Released code pulls its pair term to the rejected answer; the supervised term hides it.
    objective, pairs = OBJECTIVES["orpo"](), Pairs(seed=5)  # type: ignore[call-arg]
    policy = leaves(pairs.policy)
    losses = pairs.ours(objective, CONDITIONINGS[conditioning](), policy=policy)  # type: ignore[call-arg]
    slope = gradients(losses + policy["chosen"] / pairs.nw, policy)
    for _, chosen, rejected in MIXTURES[conditioning]:
        assert chosen is not None
        assert (slope[chosen] < 0).all()
        assert (slope[rejected] > 0).all()


def test_orpo_s_supervised_term_reads_the_plain_chosen_score() -> None:
    pairs = Pairs(seed=6)
    policy = leaves(pairs.policy)
    slope = gradients(pairs.ours(OBJECTIVES["orpo"](), CONDITIONINGS["symmetric"](), policy=policy), policy)  # type: ignore[call-arg]
    torch.testing.assert_close(slope["chosen"], -1 / pairs.nw.double())


def test_dpo_looks_at_the_chosen_response() -> None:
    # The released single-term loss has no chosen term; the symmetric form must have one.
    pairs = Pairs(seed=7)
    policy = leaves(pairs.policy)
    slope = gradients(pairs.ours(OBJECTIVES["dpo"](), CONDITIONINGS["symmetric"](), policy=policy), policy)  # type: ignore[call-arg]
    torch.testing.assert_close(slope["chosen_given_rejected"], -slope["rejected_given_chosen"])
    assert (slope["chosen_given_rejected"] < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rewards_agree_with_what_is_trained(name: str) -> None:
    # Logged accuracies of released code said the opposite of its gradients.
    objective = build(name)
    pairs = start_of(objective, 1)
    conditioning = CONDITIONINGS["none"]()  # type: ignore[call-arg]
    policy = leaves(pairs.policy)
    slope = gradients(pairs.ours(objective, conditioning, policy=policy), policy)
    moved = {score: (policy[score] - 0.1 * slope[score]).detach() for score in SCORES}

    def margin(scores: dict[Score, Tensor]) -> Tensor:
        def reward(score: Score, lengths: Tensor) -> Tensor:
            known = pairs.reference[score] if objective.uses_reference else None
            return objective.rewards(ResponseView(logps=scores[score], reference_logps=known, lengths=lengths))

        return reward("chosen", pairs.nw) - reward("rejected", pairs.nl)

    assert (margin(moved) > margin(policy)).all()


# --- recipe keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *(
            (name, {"beta": value})
            for name in OBJECTIVES
            if name != "orpo"
            for value in (0.0, -0.1, math.inf, math.nan)
        ),
        *((name, {"nll_weight": -1.0}) for name in OBJECTIVES),
        *((name, {"unknown": 1.0}) for name in OBJECTIVES),
        *(
            (name, {"label_smoothing": value})
            for name in ("dpo", "robust", "cpo", "sigmoid_norm", "exo_pair", "aot")
            for value in (-0.1, 0.5, 1.0)
        ),
        ("exo_pair", {"label_smoothing": 0.0}),
        ("simpo", {"gamma": -0.1}),
        ("rdpo", {"alpha": -0.1}),
        ("orpo", {"odds_weight": 0.0}),
        ("discopop", {"tau": 0.0}),
        ("discopop", {"tau": 1.5}),
        ("dpo", {"beta": "0.1"}),
        ("dpo", {"beta": True}),
        ("dpo", {"name": "ipo"}),
        ("ipo", {"length_normalized": "yes"}),
    ],
)
def test_values_out_of_range_are_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OBJECTIVES[name](**parameters)


@pytest.mark.parametrize("table", [OBJECTIVES, CONDITIONINGS], ids=["objectives", "conditionings"])
def test_rows_document_themselves(table: dict[str, type[Objective] | type[Conditioning]]) -> None:
    for name, row in table.items():
        part = row()  # type: ignore[call-arg]
        assert part.name == name
        assert row.model_validate(part.model_dump()) == part, "a resolved recipe must load again"
        assert row.__doc__, name
        assert row.__doc__ != row.__bases__[0].__doc__, name
        for field, info in row.model_fields.items():
            assert field == "name" or info.description, f"{name}.{field}"
        with pytest.raises(ValidationError):
            part.name = name  # type: ignore[misc]


def test_every_objective_names_its_paper() -> None:
    for name, row in OBJECTIVES.items():
        assert row.paper.startswith("arXiv:"), name
        assert row.paper.split(":")[1] in (row.__doc__ or ""), name


def test_reading_the_tables_imports_no_torch() -> None:
    code = "import sys; from inspo_hub import CONDITIONINGS, OBJECTIVES; OBJECTIVES['dpo'](); "
    subprocess.run([sys.executable, "-c", code + "assert not {'torch', 'numpy'} & set(sys.modules)"], check=True)
