"""Conditionings on separable, cyclic and length-biased preferences: win rate, KL, well-formed answers, against DPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estimates import mean_and_error, over_seeds, table
from series import Outcome, Series, World

from inspo_hub.card.curves import Chart, chart_grid
from inspo_hub.card.curves import Series as Points


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG)."""
    found = {
        annotator: [series.outcome("conditioning", World(annotator=annotator, seed=seed)) for seed in seeds]
        for annotator in series.size.annotators
    }
    parts = [f"### {annotator}\n\n{compare(outcomes)}" for annotator, outcomes in found.items()]
    charts = [chart(annotator, outcomes) for annotator, outcomes in found.items()]
    picture = chart_grid(charts, title="Win rate against KL, by conditioning", columns=len(charts))
    return "\n".join(parts), {"conditioning.svg": picture}


def compare(outcomes: Sequence[Outcome], against: str = "dpo") -> str:
    """One row per variant: figures over the seeds, and the paired difference of win rates from `against`."""
    names = [name for name in outcomes[0].systems if name != "base"]
    header = ["variant", "win rate against the base, %", f"less that of {against}, points", "", "KL, nats"]
    header += ["well-formed, %", "tokens", "margin plain / conditioned"]
    rows = []
    for name in names:
        systems = [outcome.systems[name] for outcome in outcomes]
        gap = over_seeds([outcome.wins(name) - outcome.wins(against) for outcome in outcomes])
        heldout = [system.trained["heldout"] for system in systems]
        rows.append(
            [
                name,
                str(over_seeds([outcome.wins(name) for outcome in outcomes])),
                "" if name == against else f"{100 * gap.value:+.1f} {gap.interval}",
                "" if name == against else gap.verdict,
                mean_and_error([system.kl for system in systems if system.kl is not None]),
                mean_and_error([100 * system.well_formed for system in systems], ".1f"),
                mean_and_error([system.tokens for system in systems], ".1f"),
                " / ".join(
                    f"{sum(each[key] for each in heldout) / len(heldout):.2f}"
                    for key in ("plain_margin", "conditioned_margin")
                ),
            ]
        )
    return table(header, rows)


def chart(title: str, outcomes: Sequence[Outcome]) -> Chart:
    """One point per variant and seed: win rate against KL."""
    names = [name for name in outcomes[0].systems if name != "base"]
    points = []
    for name in names:
        places = [(outcome.systems[name].kl or 0.0, float(outcome.wins(name).mean())) for outcome in outcomes]
        points.append(Points(name=name, points=places, style="points"))
    return Chart(title=title, x_label="KL from the base (nats)", y_label="win rate", series=points, guide=0.5)
