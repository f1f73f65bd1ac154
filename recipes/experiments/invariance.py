"""What InSPO's target depends on: scalarisation, reference, comparator distribution, and β. Exact, in tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from estimates import Floats, table
from tabular import (
    LINKS,
    SMOOTH,
    STRICT,
    Kind,
    Worlds,
    dpo_policy,
    draw_distribution,
    draw_worlds,
    expected_utility_policy,
    inspo_policy,
    mixture,
    same_argmax,
    total_variation,
)

from inspo_hub.card.curves import Chart, chart_grid
from inspo_hub.card.curves import Series as Line

if TYPE_CHECKING:
    from series import Series

BETAS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
KINDS: tuple[Kind, ...] = ("separable", "intransitive", "cyclic")

Policy = Callable[[Worlds, str, float], Floats]
POLICIES: Mapping[str, Policy] = {
    "DPO fit": dpo_policy,
    "ΨPO target": expected_utility_policy,
    "InSPO given y'": inspo_policy,
    "InSPO mixture": lambda worlds, link, beta: mixture(worlds, inspo_policy(worlds, link, beta)),
}


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG). Exact, so one draw of worlds per seed, pooled; nothing is trained."""
    found = {kind: [draw_worlds(kind, series.size.worlds, seed=seed) for seed in seeds] for kind in KINDS}
    parts = [
        f"{series.size.worlds * len(seeds)} worlds of 6 responses for each kind. Total variation, and in brackets the "
        "share of rows with the same most probable response.\n",
        "### Across scalarisations: logit, identity, exp\n",
        across_scalarisations(found, SMOOTH, tuple(POLICIES)),
        "### With hinge among them, and a cube\n",
        across_scalarisations(found, tuple(LINKS), ("ΨPO target", "InSPO given y'")),
        "### Across references\n",
        across(found, _other_reference),
        "### Across comparator distributions\n",
        across(found, _other_comparator),
    ]
    return "\n".join(parts), {"invariance.svg": picture(found)}


def agreement(worlds: Sequence[Worlds], name: str, links: Sequence[str], beta: float) -> tuple[float, float]:
    """(mean total variation, same argmax) of a policy between every two scalarisations."""
    apart, same = [], []
    for each in worlds:
        policies = [POLICIES[name](each, link, beta) for link in links]
        for first, second in combinations(policies, 2):
            apart.append(total_variation(first, second).mean())
            same.append(same_argmax(first, second))
    return float(np.mean(apart)), float(np.mean(same))


def across_scalarisations(found: Mapping[Kind, Sequence[Worlds]], links: Sequence[str], names: Sequence[str]) -> str:
    header = ["β", *(f"{kind}: {name}" for kind in found for name in names)]
    rows = []
    for beta in BETAS:
        cells = (agreement(worlds, name, links, beta) for worlds in found.values() for name in names)
        rows.append([f"{beta:g}", *(f"{apart:.3f} ({same:.2f})" for apart, same in cells)])
    return table(header, rows)


def across(found: Mapping[Kind, Sequence[Worlds]], other: Callable[[Worlds], Worlds]) -> str:
    """The same worlds with one thing drawn anew, for the logistic scalarisation."""
    names = [name for name in POLICIES if name != "ΨPO target"]
    header = ["β", *(f"{kind}: {name}" for kind in found for name in names)]
    rows = []
    for beta in BETAS:
        row = [f"{beta:g}"]
        for worlds in found.values():
            for name in names:
                pairs = [[POLICIES[name](each, "logit", beta) for each in (one, other(one))] for one in worlds]
                apart = np.mean([total_variation(*pair).mean() for pair in pairs])
                row.append(f"{apart:.3f} ({np.mean([same_argmax(*pair) for pair in pairs]):.2f})")
        rows.append(row)
    return table(header, rows)


def _other_reference(worlds: Worlds) -> Worlds:
    rng = np.random.default_rng(1)
    return worlds.with_reference(draw_distribution(rng, *worlds.reference.shape))


def _other_comparator(worlds: Worlds) -> Worlds:
    rng = np.random.default_rng(2)
    return worlds.with_comparator(draw_distribution(rng, *worlds.comparator.shape))


def picture(found: Mapping[Kind, Sequence[Worlds]]) -> str:
    """Agreement of the argmax between strictly increasing scalarisations as β falls, and with hinge among them."""
    charts = []
    for kind, worlds in found.items():
        wanted = [
            ("DPO fit", SMOOTH, ""),
            ("InSPO given y'", STRICT, ""),
            ("InSPO given y'", tuple(LINKS), ", hinge too"),
        ]
        lines = [
            Line(
                name=f"{name}{more}",
                points=[(-float(np.log10(beta)), agreement(worlds, name, links, beta)[1]) for beta in BETAS],
            )
            for name, links, more in wanted
        ]
        charts.append(Chart(title=kind, x_label="−log₁₀ β", y_label="same argmax", series=lines, guide=1.0))
    return chart_grid(charts, title="Agreement across scalarisations", columns=len(charts))
