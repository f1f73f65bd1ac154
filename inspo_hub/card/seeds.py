"""Variants that differ in nothing but the seed, as one: means over seeds, with what another seed would change."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspo_hub.card.facts import CardFacts, adjusted_of, heldout_measures, opponent_of, system_of, win_rate_of
from inspo_hub.card.markdown import NOTHING, code, number, table, words

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

# Two-sided 95 % of Student's t by degrees of freedom: a handful of seeds is all that anybody trains.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_KL, _ACCURACY = "KL from base, nats", "held-out accuracy, plain"
_NATS = {_KL: ".2f"}
"""Measures that are no shares."""


def settings_of(recipe: Recipe) -> dict[str, list[str]]:
    """Setting -> its variants, one for each seed; empty where the recipe sweeps no seeds, or one."""
    if len(recipe.sweep.get("seed", ())) < 2:
        return {}
    groups: dict[tuple[object, ...], list[str]] = {}
    for point in recipe.points():
        rest = tuple(place for key, place in point.places.items() if key != "seed")
        groups.setdefault((point.variant, *rest), []).append(point.name)
    return {_without_seed(names, recipe): names for names in groups.values()}


def _without_seed(names: Sequence[str], recipe: Recipe) -> str:
    """What the names have in common: all their words but the seed's."""
    kept = [word for word in names[0].split("_") if all(word in name.split("_") for name in names)]
    return "_".join(kept) or recipe.name


def over_seeds(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    """A section of means over seeds and of differences between settings, seed by seed; may be empty."""
    settings = settings_of(recipe)
    found = {facts.variant: _measures(facts) for facts in variants}
    if not settings:
        return ""
    measures = {name: _NATS.get(name, ".1%") for one in found.values() for name in one}
    rows = []
    for setting, names in settings.items():
        known = [found[name] for name in names if name in found]
        cells = [mean_over_seeds([one.get(name) for one in known], form) for name, form in measures.items()]
        rows.append([code(setting), str(len(known)), *cells])
    parts = ["## Over seeds", table(["setting", "seeds", *map(words, measures)], rows), _METHOD]
    first, *others = settings
    said = [line for other in others for line in _differences(found, measures, settings, other, first)]
    return "\n\n".join([*parts, *(["\n".join(said)] if said else [])])


_METHOD = (
    "In brackets is the 95 % interval of the mean by Student's t over seeds; it holds what another seed changes, and "
    "the prompts and pairs that were used. With few seeds it is wide, and that is what few seeds tell."
)


def _measures(facts: CardFacts) -> dict[str, float]:
    evaluation = facts.evaluation
    system: Mapping[str, Any] = system_of(evaluation, facts.variant) or {}
    estimates = {
        f"win rate against {opponent_of(evaluation)}": win_rate_of(evaluation, facts.variant),
        **adjusted_of(evaluation, facts.variant),
        _KL: system.get("kl_from_base"),
    }
    found = {name: (estimate or {}).get("value") for name, estimate in estimates.items()}
    found[_ACCURACY] = heldout_measures(facts.summary)[1].get("plain_accuracy")
    return {name: value for name, value in found.items() if value is not None}


def mean_over_seeds(values: Sequence[float | None], form: str) -> str:
    """`mean [low, high]`; without interval for a single seed."""
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    low, high = t_interval(known)
    shown = number(statistics.fmean(known), form)
    return f"{shown} [{number(low, form)}, {number(high, form)}]" if math.isfinite(low) else shown


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean ± t · s/√n, 95 %; not a number for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    freedom = len(values) - 1
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.4 / freedom
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _differences(
    found: Mapping[str, Mapping[str, float]],
    measures: Mapping[str, str],
    settings: Mapping[str, Sequence[str]],
    setting: str,
    first: str,
) -> list[str]:
    """What the intervals of the paired differences say, in words."""
    said = []
    for name, form in measures.items():
        pairs = [
            (found[mine][name], found[its][name])
            for mine, its in zip(settings[setting], settings[first], strict=True)
            if name in found.get(mine, {}) and name in found.get(its, {})
        ]
        if len(pairs) < 2:
            continue
        gains = [mine - its for mine, its in pairs]
        low, high = t_interval(gains)
        verdict = "no difference" if low <= 0 <= high else ("higher" if low > 0 else "lower")
        said.append(f"{words(name)} {mean_over_seeds(list(gains), f'+{form}')}: {verdict}")
    return [f"- {code(setting)} less {code(first)}, seed by seed: {'; '.join(said)}."] if said else []
