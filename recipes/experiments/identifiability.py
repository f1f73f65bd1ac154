"""What InSPO's loss leaves open, and what sharing between contexts distils: gradient descent on tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from estimates import Floats, table
from tabular import (
    LINKS,
    Kind,
    Worlds,
    dpo_policy,
    draw_worlds,
    inspo_policy,
    margin_loss,
    margin_loss_slope,
    same_argmax,
    softmax,
    total_variation,
)

if TYPE_CHECKING:
    from series import Series

BETA = 0.3
KINDS: tuple[Kind, ...] = ("separable", "intransitive", "cyclic")
LOSSES = ("logit", "identity", "exp", "hinge")
SHARES = (0.0, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A conditional policy found by descent: tables of logits `(worlds, K given, K)` and of the shared part."""

    worlds: Worlds
    policy: Floats
    plain: Floats
    """π(y) where nothing is given, `(worlds, K)`: the reference moved by the shared part alone."""
    excess: float
    """Mean loss above the least possible one, in nats."""


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG: none). Exact gradients, numpy alone."""
    count = series.size.worlds // 2 * len(seeds)
    found = {kind: draw_worlds(kind, count, seed=seeds[0]) for kind in KINDS}
    parts = [
        f"{count} worlds of 6 responses for each kind, β = {BETA}, gradient descent to the end.\n",
        "### One loss, several optima (logistic loss)\n",
        optima(found),
        "### The sign of a pair at the loss's optimum, and at the paper's target\n",
        signs(found),
        "### What sharing distils: value of the policy that is given nothing\n",
        sharing(found),
    ]
    return "\n".join(parts), {}


def fit(worlds: Worlds, link: str = "logit", *, share: float = 0.0, start: Floats | None = None) -> Fit:
    """The symmetric loss Σ_{y≠y'} E[ℓ(β·(f(y,y') - f(y',y)))], f = log π(y|y')/ref(y), minimised from `start`.

    π(y|y') ∝ ref(y)·exp(table[y', y] + share·common[y]): with share 0 the contexts know nothing of each other.
    `start` are logits to add, `(worlds, K given, K)`; without them the policy starts at the reference.
    """
    count, size = worlds.reference.shape
    table_part = np.zeros((count, size, size)) if start is None else start.copy()
    common = np.zeros((count, size))
    tables = [table_part, common]
    first = [np.zeros_like(each) for each in tables]
    second = [np.zeros_like(each) for each in tables]
    steps = 1500
    for step in range(1, steps + 1):
        policy = _policy(worlds, table_part, common, share)
        slope = _slope(worlds, policy, link)
        gradients = [slope, share * slope.sum(axis=1)]
        rate = 0.1 * (1 - step / (steps + 1))
        for each, gradient, mean, square in zip(tables, gradients, first, second, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient**2 - square)
            each -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-9)
    policy = _policy(worlds, table_part, common, share)
    plain = softmax(np.log(worlds.reference) + share * common)
    return Fit(worlds=worlds, policy=policy, plain=plain, excess=excess_loss(worlds, policy, link))


def _policy(worlds: Worlds, table_part: Floats, common: Floats, share: float) -> Floats:
    return softmax(np.log(worlds.reference)[:, None, :] + table_part + share * common[:, None, :])


def margins(worlds: Worlds, policy: Floats) -> Floats:
    """β·(f(y,y') - f(y',y)), `(worlds, y, y')`."""
    f = np.log(policy.transpose(0, 2, 1)) - np.log(worlds.reference)[:, :, None]
    return np.asarray(BETA * (f - f.transpose(0, 2, 1)))


def _slope(worlds: Worlds, policy: Floats, link: str) -> Floats:
    """Gradient of the loss in the logits of π(·|y'), `(worlds, y', y)`."""
    z, wins = margins(worlds, policy), worlds.preferences
    # d loss / d f(y,y'): the pair appears as (y,y') and as (y',y), with opposite signs and the same share.
    by_score = 2 * BETA * (wins * margin_loss_slope(link, z) - (1 - wins) * margin_loss_slope(link, -z))
    by_score = by_score.transpose(0, 2, 1)
    return np.asarray(by_score - by_score.sum(axis=2, keepdims=True) * policy)


def expected_loss(worlds: Worlds, z: Floats, link: str) -> float:
    """Mean over pairs of different responses of E[ℓ(±z)] under the preferences, in nats."""
    wins = worlds.preferences
    losses = wins * margin_loss(link, z) + (1 - wins) * margin_loss(link, -z)
    different = ~np.eye(z.shape[1], dtype=bool)
    return float(losses[:, different].mean())


def excess_loss(worlds: Worlds, policy: Floats, link: str) -> float:
    """How far a conditional policy is above the least loss, which has every margin at link(P)."""
    least = expected_loss(worlds, LINKS[link](worlds.preferences), link)
    return expected_loss(worlds, margins(worlds, policy), link) - least


def optima(found: Mapping[Kind, Worlds]) -> str:
    header = ["", *found]
    rows: dict[str, list[str]] = {}
    for worlds in found.values():
        rng = np.random.default_rng(0)
        near, far = fit(worlds), fit(worlds, start=2.0 * rng.normal(size=(*worlds.reference.shape, 6)))
        target, twice = (inspo_policy(worlds, "logit", beta) for beta in (BETA, 2 * BETA))
        dpo = np.repeat(dpo_policy(worlds, "logit", BETA)[:, None, :], 6, axis=1)
        figures = {
            "excess loss from the reference": f"{near.excess:.4f}",
            "excess loss from a random start": f"{far.excess:.4f}",
            "total variation between the two": f"{total_variation(near.policy, far.policy).mean():.3f}",
            "same argmax as the target, from the reference": f"{same_argmax(near.policy, target):.2f}",
            "same argmax as the target, from a random start": f"{same_argmax(far.policy, target):.2f}",
            "total variation to the target at β": f"{total_variation(near.policy, target).mean():.3f}",
            "total variation to the target at 2β": f"{total_variation(near.policy, twice).mean():.3f}",
            "excess loss of the target itself": f"{excess_loss(worlds, target, 'logit'):.4f}",
            "excess loss of DPO's policy": f"{excess_loss(worlds, dpo, 'logit'):.4f}",
        }
        for name, figure in figures.items():
            rows.setdefault(name, []).append(figure)
    return table(header, [[name, *figures] for name, figures in rows.items()])


def signs(found: Mapping[Kind, Worlds]) -> str:
    """Share of pairs whose margin has the sign of the preference."""
    rows = []
    for link in LOSSES:
        row = [link]
        for worlds in found.values():
            row.append(f"{sign_agreement(worlds, fit(worlds, link).policy):.3f}")
            row.append(f"{sign_agreement(worlds, inspo_policy(worlds, link, BETA)):.3f}")
        rows.append(row)
    return table(["loss", *(f"{kind}: {where}" for kind in found for where in ("optimum", "target"))], rows)


def sign_agreement(worlds: Worlds, policy: Floats) -> float:
    """Over pairs of different responses."""
    agree = np.sign(margins(worlds, policy)) == np.sign(worlds.preferences - 0.5)
    return float(agree[:, ~np.eye(agree.shape[1], dtype=bool)].mean())


def sharing(found: Mapping[Kind, Worlds]) -> str:
    """Win rate against the comparator distribution of what is left without an alternative."""
    header = ["share of the common part", *found]
    rows = [["reference", *(f"{value(worlds, worlds.reference):.3f}" for worlds in found.values())]]
    for share in SHARES:
        fits = [fit(worlds, share=share) for worlds in found.values()]
        rows.append([f"{share:g}", *(f"{value(each.worlds, each.plain):.3f}" for each in fits)])
    rows.append(["DPO", *(f"{value(worlds, dpo_policy(worlds, 'logit', BETA)):.3f}" for worlds in found.values())])
    return table(header, rows)


def value(worlds: Worlds, plain: Floats) -> float:
    """E_{y~π, y'~μ}[P(y≻y')], the mean over worlds."""
    return float(np.einsum("wy,wyj,wj->w", plain, worlds.preferences, worlds.comparator).mean())
