"""Preference optimisation where everything can be computed: a handful of responses, tables for policies, numpy alone.

A `Worlds` holds many worlds at once, axes (world, response, ...). `preferences[w, y, y']` is P(y ≻ y'), the reference
and the comparator distribution are rows over responses, and a conditional policy is `policy[w, y', y]`, π(y|y').

A scalarisation turns a probability into the utility that a margin loss has its optimum at, its inverse link: the loss
E[ℓ(β·margin)] is least where β·margin = link(P).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Kind = Literal["separable", "intransitive", "cyclic"]


def logit(p: Floats) -> Floats:
    """log p/(1-p): DPO's logistic loss."""
    return np.log(p) - np.log1p(-p)


LINKS: Mapping[str, Callable[[Floats], Floats]] = {
    "logit": logit,
    "identity": lambda p: 2 * p - 1,
    "exp": lambda p: 0.5 * logit(p),
    "cube": lambda p: (2 * p - 1) ** 3,
    "hinge": lambda p: np.sign(2 * p - 1),
}
"""Name -> inverse link: logistic (DPO), square (IPO), exponential, a strictly increasing one that is flat in the
middle, and hinge (SLiC), which is not strictly increasing: every response that wins at all is worth the same."""
STRICT = ("logit", "identity", "exp", "cube")
SMOOTH = ("logit", "identity", "exp")
"""Those whose margin loss is smooth, so that DPO's fit is found by Newton's method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worlds:
    """Worlds of one kind: preferences `(worlds, K, K)`, reference and comparator distribution `(worlds, K)`."""

    preferences: Floats
    reference: Floats
    comparator: Floats

    def with_reference(self, reference: Floats) -> Worlds:
        return replace(self, reference=reference)

    def with_comparator(self, comparator: Floats) -> Worlds:
        return replace(self, comparator=comparator)


def draw_worlds(kind: Kind, count: int, *, responses: int = 6, seed: int = 0) -> Worlds:
    """Random worlds. Logits of the preferences: differences of a score (separable), free antisymmetric numbers
    (intransitive), or a score and a rock-paper-scissors of three groups (cyclic)."""
    rng = np.random.default_rng([seed, ("separable", "intransitive", "cyclic").index(kind)])
    score = rng.normal(size=(count, responses))
    logits = score[:, :, None] - score[:, None, :]
    if kind == "intransitive":
        free = 1.5 * rng.normal(size=(count, responses, responses))
        logits = (free - free.transpose(0, 2, 1)) / np.sqrt(2)
    elif kind == "cyclic":
        group = np.arange(responses) % 3
        wins = (group[None, :] - group[:, None]) % 3
        logits = logits + 2.0 * np.array([0.0, 1.0, -1.0])[wins]
    return Worlds(
        preferences=1 / (1 + np.exp(-logits)),
        reference=draw_distribution(rng, count, responses),
        comparator=draw_distribution(rng, count, responses),
    )


def draw_distribution(rng: np.random.Generator, count: int, responses: int) -> Floats:
    """Softmax of standard normal numbers, `(count, responses)`: full support."""
    return softmax(rng.normal(size=(count, responses)))


def softmax(logits: Floats) -> Floats:
    """Over the last axis; logits of any size."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def inspo_policy(worlds: Worlds, link: str, beta: float) -> Floats:
    """π(y|y') ∝ ref(y)·exp(link(P(y≻y'))/β), `(worlds, K given, K)`: the target of arXiv:2512.23126.

    It maximises E_y[link(P(y≻y'))] - β·KL(π(·|y')‖ref) for every y'; the comparator distribution has no part in it.
    """
    utility = LINKS[link](worlds.preferences).transpose(0, 2, 1)
    return softmax(np.log(worlds.reference)[:, None, :] + utility / beta)


def mixture(worlds: Worlds, policy: Floats) -> Floats:
    """Σ_y' μ(y')·π(y|y'), `(worlds, K)`: what is left of a conditional policy where there is no alternative to see."""
    return np.einsum("wj,wjy->wy", worlds.comparator, policy)


def expected_utility_policy(worlds: Worlds, link: str, beta: float) -> Floats:
    """π(y) ∝ ref(y)·exp(E_{y'~μ}[link(P(y≻y'))]/β), `(worlds, K)`: ΨPO, the target of arXiv:2310.12036."""
    utility = np.einsum("wj,wyj->wy", worlds.comparator, LINKS[link](worlds.preferences))
    return softmax(np.log(worlds.reference) + utility / beta)


def dpo_margins(worlds: Worlds, link: str, *, steps: int = 60) -> Floats:
    """h = β·log(π/ref), `(worlds, K)`, of the least expected margin loss with both responses drawn from μ.

    β only scales it. Newton's method on a convex function of h, whose free constant is removed by a rank-one term.
    """
    weights = worlds.comparator[:, :, None] * worlds.comparator[:, None, :]
    wins = worlds.preferences
    h: Floats = np.zeros_like(worlds.reference)
    diagonal = np.arange(worlds.reference.shape[1])
    for _ in range(steps):
        z = h[:, :, None] - h[:, None, :]
        first = weights * (wins * margin_loss_slope(link, z) - (1 - wins) * margin_loss_slope(link, -z))
        second = weights * (wins * _curvature(link, z) + (1 - wins) * _curvature(link, -z))
        gradient = first.sum(axis=2) - first.sum(axis=1)
        hessian = -(second + second.transpose(0, 2, 1))
        hessian[:, diagonal, diagonal] -= hessian.sum(axis=2)
        step = np.linalg.solve(hessian + 1.0, gradient[:, :, None])[:, :, 0]
        h = h - step * np.minimum(1.0, 2.0 / np.abs(step).max(axis=1, keepdims=True).clip(1e-12))
    return h - h.mean(axis=1, keepdims=True)


def dpo_policy(worlds: Worlds, link: str, beta: float) -> Floats:
    """π ∝ ref·exp(h/β), `(worlds, K)`: what a table trained by the margin loss converges to."""
    return softmax(np.log(worlds.reference) + dpo_margins(worlds, link) / beta)


def margin_loss(link: str, z: Floats) -> Floats:
    """ℓ(z) whose optimum under P is at `LINKS[link](P)`: logistic, square around 1, exponential, hinge."""
    if link == "logit":
        return np.logaddexp(0.0, -z)
    if link == "identity":
        return (z - 1) ** 2
    if link == "exp":
        return np.exp(-z)
    assert link == "hinge", f"no loss is known for {link}"
    return np.maximum(0.0, 1 - z)


def margin_loss_slope(link: str, z: Floats) -> Floats:
    """ℓ'(z)."""
    if link == "logit":
        return -1 / (1 + np.exp(z))
    if link == "identity":
        return 2 * (z - 1)
    if link == "exp":
        return -np.exp(-z)
    assert link == "hinge", f"no loss is known for {link}"
    return np.where(z < 1, -1.0, 0.0)


def _curvature(link: str, z: Floats) -> Floats:
    """ℓ''(z) of the smooth losses."""
    if link == "logit":
        p = 1 / (1 + np.exp(z))
        return p * (1 - p)
    if link == "identity":
        return np.full_like(z, 2.0)
    assert link == "exp", f"{link} has no smooth loss"
    return np.exp(-z)


def total_variation(first: Floats, second: Floats) -> Floats:
    """½·Σ|p - q| over the last axis."""
    return np.asarray(0.5 * np.abs(first - second).sum(axis=-1))


def same_argmax(first: Floats, second: Floats) -> Floats:
    """Share of rows whose most probable response is the same."""
    return np.asarray((first.argmax(axis=-1) == second.argmax(axis=-1)).mean())
