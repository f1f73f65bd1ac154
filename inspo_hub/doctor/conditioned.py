"""Findings about the conditioned score before training: offsets, the margin's spread, whether the base reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from inspo_hub.conditioning import ReferenceContext
from inspo_hub.doctor.findings import Finding, Severity
from inspo_hub.doctor.offsets import Offsets, spread
from inspo_hub.views import TreeLogps

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

MARGIN_SPREAD = 0.3
"""A start margin whose std is more than this, in units of the reward, moves the loss before anything was learned: with
0.3 the mean |σ - ½| is 0.06. From small exact experiments (multi base 0.12, plain base 1.14 at β 0.1)."""
READING_EFFECT = 1.0
"""Mean ÷ std over pairs of what a copy helps more than a stranger, per token. Measured on the quickstart's bases: the
one that has read two answers 2.2, the one that has not 0.3 (docs/doctor.md)."""
STRANGE = 0.5
"""Share of a response's own nats that an alternative may cost before its format counts as strange to the base."""


def offset_finding(offsets: Mapping[str, Offsets], own: str) -> Finding:
    """What the partner, the response itself and a foreign response do, in the recipe's format and the other one.

    Args:
        offsets: by `alternative.format`.
        own: the recipe's.
    """
    here, cost = offsets[own], {name: _cost(one) for name, one in offsets.items()}
    best = min(cost, key=lambda name: cost[name])
    strange = cost[own] > STRANGE
    do = "set reference.context: conditioned, which takes this out of the loss"
    if best != own and cost[best] < cost[own] / 2:
        do = f"set alternative.format: {best}, which costs {cost[best]:.0%} of a response's nats; or {do}"
    elif own == "turn":
        do += "; or words that the base has read between two answers as alternative.turn_text"
    copying = float((here.itself - here.partner).mean())  # inflates a response that repeats its alternative
    return Finding(
        check="offsets",
        severity="advice" if strange else "ok",
        measured=f"nats that an alternative adds to log π(y_w | x) = {_plus_minus(here.scores['chosen'])}, "
        f"{len(here.partner)} pairs: " + "; ".join(_told(name, one) for name, one in offsets.items()),
        means=f"in this format ({own}) the partner costs {cost[own]:.0%} of a response's own nats"
        + (": it is strange to this base" if strange else "")
        + f"; a copy is worth {copying:+.1f} nats more than the partner",
        do=do if strange else "",
        numbers={name: one.to_dict() for name, one in offsets.items()},
    )


def _told(name: str, offsets: Offsets) -> str:
    parts = [f"{what} {_plus_minus(getattr(offsets, part))}" for part, what in _ALTERNATIVES.items()]
    return f"{name}: {', '.join(parts)}"


_ALTERNATIVES = {"partner": "partner", "itself": "the response itself", "foreign": "a foreign response"}


def _cost(offsets: Offsets) -> float:
    """Nats that the partner takes from a response, as a share of those it has without."""
    return float(-offsets.partner.mean() / -offsets.scores["chosen"].mean())


def _plus_minus(values: Any) -> str:
    return f"{values.mean():+.1f} ± {values.std():.1f}"


def gate_finding(offsets: Offsets, conditioned: Mapping[str, Recipe]) -> Finding:
    """Does the base read two responses in one context? Where it does not, nothing learned with one reaches π(·|x).

    Args:
        conditioned: the variants that show an alternative.
    """
    per_token = offsets.reading / offsets.chosen_tokens
    effect = float(per_token.mean() / max(per_token.std(), 1e-12))
    cost = _cost(offsets)
    only = tuple(
        name for name, recipe in conditioned.items() if recipe.conditioning.name not in ("averaged", "annealed")
    )
    severity: Severity = "ok" if effect >= READING_EFFECT and cost <= STRANGE else "advice"
    if severity == "ok":
        means, do = "the base reads two responses in one context: what is learned given one can reach π(·|x)", ""
    elif effect >= READING_EFFECT:
        means = "the base reads the alternative, but a response after one is a strange text to it"
        do = "set conditioning: averaged, which trains the plain scores too, and watch distillation_gap"
    else:
        severity = "warning" if only else "advice"
        means = (
            "the base does not read two responses in one context: the loss will fall on a pathway of its own, and "
            "little of it reaches π(·|x) (in small exact experiments win rate .54 against DPO's .81; .74 with averaged)"
        )
        do = "watch distillation_gap in metrics.jsonl; a base tuned on conversations of several turns reads better"
        do = f"set conditioning: averaged or annealed; {do}" if only else do
    return Finding(
        check="distillation gate",
        severity=severity,
        measured=f"a copy helps a response {_plus_minus(offsets.reading)} nats more than a response to another prompt "
        f"does (mean ÷ std per token {effect:.2f}); the partner costs it {cost:.0%} of its own nats",
        means=means,
        do=do,
        variants=only if severity == "warning" else (),
        numbers={"effect": effect, "partner_cost": cost, "reading": spread(offsets.reading)},
    )


def margin_findings(variants: Mapping[str, Recipe], policy: Offsets, reference: Offsets | None) -> list[Finding]:
    """The conditioned margin's mean and spread at step 0, in units of each objective's own reward, with its advice.

    Args:
        variants: those that show an alternative; without a reference nothing is subtracted, and they are left out.
        reference: the same pairs under the reference; None: it is the initial policy.
    """
    alike: dict[str, tuple[Finding, list[str]]] = {}
    for name, recipe in variants.items():
        if recipe.objective.uses_reference:
            finding = _margin(recipe, policy, reference or policy)
            alike.setdefault(repr(finding), (finding, []))[1].append(name)
    return [replace(finding, variants=tuple(names)) for finding, names in alike.values()]


def _margin(recipe: Recipe, policy: Offsets, reference: Offsets) -> Finding:
    context = recipe.reference.context
    start = {kind: _start(recipe, policy, reference, kind) for kind in _CONTEXTS}
    here, beta = start[context], getattr(recipe.objective, "beta", None)
    wide = context == "plain" and here["std"] > MARGIN_SPREAD
    if wide:
        means = (
            f"std × β is above {MARGIN_SPREAD}: pairs start as won or lost by what an alternative does to a response, "
            "and the first steps go into unlearning that"
        )
    elif context == "plain":
        means = f"std × β is below {MARGIN_SPREAD}: a plain and a conditioned reference train about the same"
    else:
        means = "the reference sees the same alternative: what it does to a response cancels"
    do = "set reference.context: conditioned, whose margin starts at 0, for two more cached scores a pair"
    if recipe.alternative.format == "concat":
        do += "; or alternative.format: turn"
    return Finding(
        check="start margin",
        severity="warning" if wide else "ok",
        measured=f"reward margin{'' if beta is None else f' (β {beta:g})'} at step 0, reference.context {context}: "
        f"{here['mean']:+.3f} ± {here['std']:.3f}, mean |σ - ½| {here['mean_abs_sigmoid']:.3f}, loss {here['loss']:.3f}"
        f" ({start['conditioned']['loss']:.3f} with conditioned)",
        means=means,
        do=do if wide else "",
        numbers={str(kind): found for kind, found in start.items()},
    )


_CONTEXTS: tuple[ReferenceContext, ...] = ("plain", "conditioned")


def _start(recipe: Recipe, policy: Offsets, reference: Offsets, context: ReferenceContext) -> dict[str, float]:
    """The first view's reward margin and the loss at step 0, as the run computes them."""
    objective = recipe.objective
    views = recipe.conditioning.views(
        _logps(policy),
        _logps(reference),
        chosen_lengths=torch.from_numpy(policy.chosen_tokens),
        rejected_lengths=torch.from_numpy(policy.rejected_tokens),
        reference_context=context,
        with_plain_chosen=objective.needs_plain_chosen,
    )
    losses = torch.stack([weight * objective.pair_losses(view) for weight, view in views]).sum(dim=0)
    view = views[0][1]
    margin = objective.rewards(view.chosen) - objective.rewards(view.rejected)
    return {
        "mean": float(margin.mean()),
        "std": float(margin.std(correction=0)),
        "mean_abs_sigmoid": float((margin.sigmoid() - 0.5).abs().mean()),
        "loss": float(losses.mean()),
    }


def _logps(offsets: Offsets) -> TreeLogps:
    return TreeLogps(**{score: torch.from_numpy(values).float() for score, values in offsets.scores.items()})
