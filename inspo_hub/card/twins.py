"""`twin_card`: all variants of one recipe side by side, trained on the same pairs in the same order from one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.card.curves import Series, line_chart
from inspo_hub.card.data import data_report, data_sources
from inspo_hub.card.embedded import embed_lock, embed_recipe, published_yaml
from inspo_hub.card.facts import CardFacts, heldout_measures, opponent_of, win_rate_of
from inspo_hub.card.markdown import HUB, code, count, fenced, number, table, words
from inspo_hub.card.measured import latency_table, preference_tables
from inspo_hub.card.render import CURVES, write_card
from inspo_hub.card.results import BASE, evaluation_tables, with_error
from inspo_hub.card.samples import samples
from inspo_hub.card.sections import base_name, citations_of, duration, missing_files
from inspo_hub.card.seeds import over_seeds
from inspo_hub.card.training_curves import budget_curves, twin_curves
from inspo_hub.hub import redact

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

FRONTIER, BUDGET = "report/frontier.svg", "report/budget.svg"
MANY, MOST_CURVES = 6, 8
"""Variants beyond which tables are turned and colours shared; variants that are drawn as curves."""
_HELDOUT = {
    "plain_accuracy": ("accuracy, plain", ".1%"),
    "conditioned_accuracy": ("accuracy, conditioned", ".1%"),
    "plain_margin": ("margin, plain", ".3f"),
    "conditioned_margin": ("margin, conditioned", ".3f"),
    "distillation_gap": ("distillation gap", ".3f"),
}


SAMPLES = "samples"
"""The part of the comparison that a page shows in its own way."""


def twin_card(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    """The comparison of the variants of `recipe`, the recipe as it was given, with `variants:` or `sweep:`."""
    return "\n\n".join(twin_parts(recipe, variants).values()) + "\n"


def twin_parts(recipe: Recipe, variants: Sequence[CardFacts]) -> dict[str, str]:
    """The comparison's sections by name, in order; those with nothing to say are left out."""
    assert variants, "a comparison has at least one variant"
    first = variants[0]
    data = ["## Data", data_sources(first), *(data_report(first.data_report) if first.data_report else [])]
    parts = {
        "introduction": _introduction(recipe, variants),
        "differences": _differences(variants),
        "judged": _judged(recipe, variants),
        "seeds": over_seeds(recipe, variants),
        "heldout": _heldout(variants),
        "curves": _curves(variants),
        "cost": _cost(variants),
        SAMPLES: samples(first.samples),
        "data": "\n\n".join(data),
        "recipe": f"## Recipe and lock\n\n{embed_recipe(published_yaml(recipe))}\n\n{embed_lock(first.lock)}",
        "reproduction": _reproduction(recipe, first),
        "limits": _limits(recipe, variants),
        "citations": citations_of(variants),
    }
    return {name: redact(part) for name, part in parts.items() if part}


def twin_pictures(recipe: Recipe, variants: Sequence[CardFacts]) -> dict[str, str]:
    """File name -> SVG of every picture that the comparison names."""
    drawn = variants[:MOST_CURVES]
    records = {facts.variant: facts.metrics for facts in drawn}
    costs = {facts.variant: facts.summary for facts in drawn}
    pictures = {
        CURVES: twin_curves(records, f"Held-out curves of {recipe.name}"),
        BUDGET: budget_curves(records, costs, f"What {recipe.name} reached for its tokens and seconds"),
        FRONTIER: frontier_chart(variants[0].evaluation, _method_of(variants)),
    }
    return {name: svg for name, svg in pictures.items() if svg}


def write_twin_card(folder: Path, recipe: Recipe, variants: Sequence[CardFacts]) -> None:
    """Writes README.md and its pictures into the output folder that holds the variants' folders."""
    write_card(folder, twin_card(recipe, variants), twin_pictures(recipe, variants))


def frontier_chart(evaluation: Mapping[str, Any] | None, methods: Mapping[str, str] | None = None) -> str | None:
    """Win rate against KL of every judged variant, with intervals; None where not both were measured.

    Args:
        methods: variant -> what it shares a colour with; every variant has its own without.
    """
    groups: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for name, place in _on_the_plane(evaluation).items():
        groups.setdefault((methods or {}).get(name, name), []).append(place)
    if not groups:
        return None
    series = [
        Series(
            name=name,
            style="points",
            points=[(kl["value"], won["value"]) for kl, won in places],
            intervals=[(won["low"], won["high"]) for _, won in places],
            x_intervals=[(kl["low"], kl["high"]) for kl, _ in places],
        )
        for name, places in groups.items()
    ]
    title = "Win rate against KL from the base"
    opponent = "the base" if opponent_of(evaluation) == BASE else opponent_of(evaluation)
    return line_chart(series, title, "KL from the base, nats per answer", f"win rate against {opponent}", guide=0.5)


def _on_the_plane(evaluation: Mapping[str, Any] | None) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """System -> KL and win rate, where both were measured."""
    found = {}
    for system in (evaluation or {}).get("systems") or ():
        kl, won = system.get("kl_from_base"), win_rate_of(evaluation, system["name"])
        if kl and won:
            found[system["name"]] = (kl, won)
    return found


def _method_of(variants: Sequence[CardFacts]) -> dict[str, str] | None:
    """Objective and conditioning of each variant, where there are too many for a colour each."""
    if len(variants) <= MANY:
        return None
    return {facts.variant: f"{facts.recipe.objective.name} × {facts.recipe.conditioning.name}" for facts in variants}


def _frontier_in_words(evaluation: Mapping[str, Any] | None) -> str:
    """Which variants no other one beats in both; a point that is, may be so by chance."""
    places = {name: (kl["value"], won["value"]) for name, (kl, won) in _on_the_plane(evaluation).items()}
    best = [
        name
        for name, (kl, wins) in places.items()
        if not any(x <= kl and y >= wins and (x, y) != (kl, wins) for x, y in places.values())
    ]
    listed = ", ".join(map(code, best))
    return f"No other variant wins more at less KL than {listed}; intervals decide whether that is chance."


def _introduction(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    names = ", ".join(_link(facts) for facts in variants)
    counts = {facts.summary.get("steps") for facts in variants}
    steps = f", {count(counts.pop())} optimizer steps each" if len(counts) == 1 else ""
    seeds = recipe.sweep.get("seed", (recipe.seed,))
    same = f"from the same seed ({seeds[0]})" if len(seeds) == 1 else f"for each of the seeds {words(str(seeds)[1:-1])}"
    few = len(variants) <= MANY
    title = " against ".join(code(facts.variant) for facts in variants) if few else f"{len(variants)} variants"
    parts = [
        f"# {words(recipe.name)}: {title}",
        f"{len(variants)} variants of {base_name(variants[0])}, trained on the same pairs in the same order {same}"
        f"{steps}: {names}."
        if len(variants) > 1
        else f"One variant of {base_name(variants[0])}: {names}.",
    ]
    if recipe.description:
        parts.insert(1, f"> {words(recipe.description)}")
    return "\n\n".join(parts)


def _link(facts: CardFacts) -> str:
    """The variant's own card: on the Hub where it is published, else in the folder beside this one."""
    target = f"{HUB}/{facts.repo_id}" if facts.repo_id else f"{facts.variant}/README.md"
    return f"[{facts.variant}]({target})"


def _differences(variants: Sequence[CardFacts]) -> str:
    """The recipe keys in which the variants differ."""
    flat = [_flatten(facts.recipe.model_dump(mode="json")) for facts in variants]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key != "name"]
    differing = [key for key in keys if len({repr(one.get(key, "")) for one in flat}) > 1]
    if not differing:
        return ""
    rows = [[code(key), *(code(str(one[key])) if key in one else "–" for one in flat)] for key in differing]
    columns = ["recipe key", *(code(facts.variant) for facts in variants)]
    if len(variants) > MANY:  # a row for each, for a table as wide as that cannot be read
        columns, *rows = (list(row) for row in zip(columns, *rows, strict=True))
    return "## What differs\n\n" + table(columns, rows)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _judged(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    evaluation = variants[0].evaluation
    if not evaluation:
        return "## Answers\n\nNo answers were generated and judged."
    shown = evaluation
    if len(variants) > MANY:
        against = {*(evaluation.get("opponents") or [BASE]), variants[0].variant}
        pairs = [pair for pair in evaluation["comparisons"] if against & {pair["first"], pair["second"]}]
        shown = {**evaluation, "comparisons": pairs}
    parts = [f"## Answers\n\n{_sentence(shown)}{evaluation_tables(shown)}"]
    if len(shown["comparisons"]) < len(evaluation["comparisons"]):
        parts.append("Every other pair of variants stands in `report/comparison.md`.")
    if _on_the_plane(evaluation):
        parts += [f"![Win rate against KL, with intervals]({FRONTIER})", _frontier_in_words(evaluation)]
    return "\n\n".join([*parts, *filter(None, [latency_table(variants[0].latency)])])


def _sentence(evaluation: Mapping[str, Any]) -> str:
    """What the intervals say between variants, in words; empty with one variant."""
    said: dict[str, list[str]] = {}
    others = {BASE, *(evaluation.get("opponents") or ())}
    for pair in evaluation.get("comparisons") or ():
        if not others & {pair["first"], pair["second"]} and pair.get("verdict"):
            said.setdefault(pair["verdict"], []).append(f"{code(pair['first'])} against {code(pair['second'])}")
    sentences = [f"{', '.join(pairs)}: {words(verdict)}" for verdict, pairs in said.items()]
    return f"{'; '.join(sentences)}.\n\n" if sentences else ""


def _heldout(variants: Sequence[CardFacts]) -> str:
    records = [heldout_measures(facts.summary)[1] for facts in variants]
    metrics = [metric for metric in _HELDOUT if any(record.get(metric) is not None for record in records)]
    if not metrics:
        return "## Held-out preferences\n\nNothing was measured on held-out pairs."
    rows = [
        [code(facts.variant), *(with_error(record, metric, _HELDOUT[metric][1]) for metric in metrics)]
        for facts, record in zip(variants, records, strict=True)
    ]
    columns = ["variant", *(_HELDOUT[metric][0] for metric in metrics)]
    pairs = count(records[0].get("pairs"))
    more = preference_tables(variants[0].preferences)
    return (
        f"## Held-out preferences\n\n{table(columns, rows)}\n\n{pairs} pairs, the same for all; "
        "± is the standard error over pairs of each figure alone, not of a difference. Margins of objectives with "
        "different rewards do not compare." + (f"\n\n{more}" if more else "")
    )


def _curves(variants: Sequence[CardFacts]) -> str:
    records = {facts.variant: facts.metrics for facts in variants[:MOST_CURVES]}
    if not twin_curves(records, ""):
        return ""
    parts = ["## Curves", f"![Held-out accuracies, margins and distillation gap over optimizer steps]({CURVES})"]
    if budget_curves(records, {facts.variant: facts.summary for facts in variants}, ""):
        parts.append(f"![Held-out accuracy over trained tokens, and over seconds]({BUDGET})")
    if len(variants) > MOST_CURVES:
        parts.append(f"Of the first {MOST_CURVES} variants; the records of all are in their `metrics.jsonl`.")
    return "\n\n".join(parts)


def _cost(variants: Sequence[CardFacts]) -> str:
    columns = ["variant", "steps", "pairs", "tokens", "tokens per step", "seconds per step", "training time"]
    rows = []
    for facts in variants:
        summary = facts.summary
        seconds, steps = summary.get("seconds_per_step"), summary.get("steps")
        rows.append(
            [
                code(facts.variant),
                *(count(summary.get(key)) for key in ("steps", "pairs", "tokens", "tokens_per_step")),
                number(seconds, ".3g"),
                duration(seconds * steps if seconds is not None and steps is not None else None),
            ]
        )
    per_step = [facts.summary.get("tokens_per_step") for facts in variants]
    known = [tokens for tokens in per_step if tokens]
    note = "Seconds are medians over the logged intervals."
    if len(known) > 1 and max(known) > min(known):
        note += f" Tokens per step differ by a factor of {number(max(known) / min(known), '.2f')} between variants."
    return f"## Cost\n\n{table(columns, rows)}\n\n{note}"


def _reproduction(recipe: Recipe, first: CardFacts) -> str:
    start = f"With inspo_hub {first.package_version} installed, save the recipe above as `recipe.yaml` and run"
    command = fenced("accelerate launch -m inspo_hub.run recipe.yaml", "bash")
    return "\n\n".join(["## How to reproduce", start, command, *missing_files(recipe)])


def _limits(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    lines = []
    if len(recipe.sweep.get("seed", ())) < 2:
        lines.append(
            "One training run of each variant with one seed: the intervals do not hold what another seed would change."
        )
    if not set(recipe.sweep) - {"seed"}:
        lines.append("One setting of each variant: a comparison at one point says less than a frontier over settings.")
    if not variants[0].evaluation:
        lines.append("No answers were judged: held-out preferences alone do not say which variant answers better.")
    lines.append("The limits of each variant stand in its own card.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
