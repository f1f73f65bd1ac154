"""Win rate against KL over β and learning rate, for DPO, DPO with a little NLL, symmetric and averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estimates import mean_and_error, over_seeds, table
from series import Outcome, Series, World

from inspo_hub.card.curves import Chart, chart_grid
from inspo_hub.card.curves import Series as Points

SETTINGS = ((0.3, 8e-4), (0.3, 4e-4), (0.3, 1.6e-3), (0.1, 8e-4), (1.0, 8e-4))
"""(β, learning rate): a cross about the setting of the other experiments, which costs half of the grid around it."""
BELOW = (0.25, 0.5, 1.0, 2.0)
"""Limits of KL, in nats, at which methods are compared."""


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG). On separable preferences."""
    found: dict[tuple[float, float], list[Outcome]] = {}
    for seed in seeds:
        for beta, rate in SETTINGS:
            settings = [f"objective.beta={beta}", f"train.lr={rate}"]
            outcome = series.outcome("frontier", World(seed=seed), settings, name=f"beta{beta:g}-lr{rate:g}")
            found.setdefault((beta, rate), []).append(outcome)
    names = [name for name in next(iter(found.values()))[0].systems if name != "base"]
    rows = []
    for (beta, rate), outcomes in found.items():
        for name in names:
            kl = [outcome.systems[name].kl or 0.0 for outcome in outcomes]
            formed = [100 * outcome.systems[name].well_formed for outcome in outcomes]
            win = str(over_seeds([outcome.wins(name) for outcome in outcomes]))
            rows.append([name, f"{beta:g}", f"{rate:g}", win, mean_and_error(kl), mean_and_error(formed, ".1f")])
    rows.sort(key=lambda row: names.index(row[0]))
    header = ["variant", "β", "learning rate", "win rate against the base, %", "KL, nats", "well-formed, %"]
    parts = [best_below(found, names), table(header, rows)]
    return "\n".join(parts), {"frontier.svg": picture(found, names)}


def best_below(found: Mapping[tuple[float, float], Sequence[Outcome]], names: Sequence[str]) -> str:
    """Per method the highest mean win rate of a setting with mean KL below a limit: best of the same settings."""
    rows = []
    for name in names:
        row = [name]
        for limit in BELOW:
            reached = [
                (float(sum(outcome.wins(name).mean() for outcome in outcomes)) / len(outcomes), beta, rate)
                for (beta, rate), outcomes in found.items()
                if sum(outcome.systems[name].kl or 0.0 for outcome in outcomes) / len(outcomes) <= limit
            ]
            win, beta, rate = max(reached, default=(float("nan"), 0.0, 0.0))
            row.append(f"{100 * win:.1f} (β {beta:g}, {rate:g})" if reached else "none")
        rows.append(row)
    return table(["best win rate, %, with KL up to", *(f"{limit:g} nats" for limit in BELOW)], rows)


def picture(found: Mapping[tuple[float, float], Sequence[Outcome]], names: Sequence[str]) -> str:
    """One point per setting and seed."""
    points = []
    for name in names:
        outcomes = [outcome for each in found.values() for outcome in each]
        places = [(outcome.systems[name].kl or 0.0, float(outcome.wins(name).mean())) for outcome in outcomes]
        points.append(Points(name=name, points=places, style="points"))
    chart = Chart(title="Win rate against KL", x_label="KL from the base (nats)", y_label="win rate", series=points)
    return chart_grid([chart], title="Win rate against KL over β and learning rate", columns=1, width=640, height=420)
