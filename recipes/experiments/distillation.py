"""Bases that have and have not read two answers in one context: does the conditioned loss reach π(y|x)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estimates import mean_and_error, over_seeds, table
from series import Outcome, Series, World

BASES = {"multi": "has read two answers in one context", "plain": "has read single answers only"}


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG: none). On separable preferences; each base answers and judges its own pairs."""
    found: dict[str, list[Outcome]] = {base: [] for base in BASES}
    for seed in seeds:
        for base in BASES:
            found[base].append(series.outcome("distillation", World(base=base, seed=seed)))
    return "\n".join(f"### The base {BASES[base]}\n\n{compare(each)}" for base, each in found.items()), {}


def compare(outcomes: Sequence[Outcome]) -> str:
    """One row per variant: what training raised, given the alternative and without it, and what answers became."""
    names = [name for name in outcomes[0].systems if name != "base"]
    rows = []
    for name in names:
        systems = [outcome.systems[name] for outcome in outcomes]
        kl = [system.kl for system in systems if system.kl is not None]
        heldout = [system.trained["heldout"] for system in systems]
        margins = ("conditioned_margin", "plain_margin", "plain_accuracy")
        rows.append(
            [
                name,
                str(over_seeds([outcome.wins(name) for outcome in outcomes])),
                mean_and_error(kl),
                *(mean_and_error([each[key] for each in heldout]) for key in margins),
                mean_and_error([100 * system.well_formed for system in systems], ".1f"),
            ]
        )
    header = [
        "variant",
        "win rate against the base, %",
        "KL, nats",
        "margin given the alternative",
        "margin without it",
    ]
    return table([*header, "accuracy without it", "well-formed, %"], rows)
