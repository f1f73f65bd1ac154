"""`twin_card`: all variants of one recipe side by side, trained on the same pairs in the same order from one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.card.curves import Series, line_chart
from inspo_hub.card.data import data_report, data_sources
from inspo_hub.card.embedded import embed_lock, embed_recipe, published_yaml
from inspo_hub.card.facts import CardFacts, heldout_measures
from inspo_hub.card.markdown import HUB, code, count, fenced, number, table, words
from inspo_hub.card.render import CURVES, write_card
from inspo_hub.card.results import BASE, evaluation_tables, with_error
from inspo_hub.card.sections import base_name, citations_of, duration, missing_files
from inspo_hub.card.training_curves import twin_curves
from inspo_hub.hub import redact

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

FRONTIER = "report/frontier.svg"
_HELDOUT = {
    "plain_accuracy": ("accuracy, plain", ".1%"),
    "conditioned_accuracy": ("accuracy, conditioned", ".1%"),
    "plain_margin": ("margin, plain", ".3f"),
    "conditioned_margin": ("margin, conditioned", ".3f"),
    "distillation_gap": ("distillation gap", ".3f"),
}


def twin_card(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    """The comparison of the variants of `recipe`, the recipe as it was given, with `variants:`."""
    assert variants, "a comparison has at least one variant"
    first = variants[0]
    parts = [
        _introduction(recipe, variants),
        _differences(variants),
        _judged(variants),
        _heldout(variants),
        _curves(variants),
        _cost(variants),
        "\n\n".join(["## Data", data_sources(first), *(data_report(first.data_report) if first.data_report else [])]),
        f"## Recipe and lock\n\n{embed_recipe(published_yaml(recipe))}\n\n{embed_lock(first.lock)}",
        _reproduction(recipe, first),
        _limits(variants),
        citations_of(variants),
    ]
    return redact("\n\n".join(part for part in parts if part) + "\n")


def write_twin_card(folder: Path, recipe: Recipe, variants: Sequence[CardFacts]) -> None:
    """Writes README.md and its pictures into the output folder that holds the variants' folders."""
    curves = twin_curves({facts.variant: facts.metrics for facts in variants}, f"Held-out curves of {recipe.name}")
    frontier = frontier_chart(variants[0].evaluation)
    pictures = {CURVES: curves, FRONTIER: frontier}
    write_card(folder, twin_card(recipe, variants), {name: svg for name, svg in pictures.items() if svg})


def frontier_chart(evaluation: Mapping[str, Any] | None) -> str | None:
    """Win rate against KL of every judged variant, with intervals; None where not both were measured."""
    systems = [
        system
        for system in (evaluation or {}).get("systems") or ()
        if system.get("win_rate_against_base") and system.get("kl_from_base")
    ]
    if not systems:
        return None
    series = [
        Series(
            name=system["name"],
            style="points",
            points=[(system["kl_from_base"]["value"], system["win_rate_against_base"]["value"])],
            intervals=[(system["win_rate_against_base"]["low"], system["win_rate_against_base"]["high"])],
            x_intervals=[(system["kl_from_base"]["low"], system["kl_from_base"]["high"])],
        )
        for system in systems
    ]
    title = "Win rate against KL from the base"
    return line_chart(series, title, "KL from the base, nats per answer", "win rate against the base", guide=0.5)


def _introduction(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    names = ", ".join(_link(facts) for facts in variants)
    counts = {facts.summary.get("steps") for facts in variants}
    steps = f", {count(counts.pop())} optimizer steps each" if len(counts) == 1 else ""
    same = "on the same pairs in the same order from the same seed"
    parts = [
        f"# {words(recipe.name)}: {' against '.join(code(facts.variant) for facts in variants)}",
        f"{len(variants)} variants of {base_name(variants[0])}, trained {same} ({recipe.seed}){steps}: {names}."
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
    return "## What differs\n\n" + table(["recipe key", *(code(facts.variant) for facts in variants)], rows)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _judged(variants: Sequence[CardFacts]) -> str:
    evaluation = variants[0].evaluation
    if not evaluation:
        return "## Answers\n\nNo answers were generated and judged."
    picture = f"\n\n![Win rate against KL, with intervals]({FRONTIER})" if frontier_chart(evaluation) else ""
    return f"## Answers\n\n{_sentence(variants, evaluation)}{evaluation_tables(evaluation)}{picture}"


def _sentence(variants: Sequence[CardFacts], evaluation: Mapping[str, Any]) -> str:
    """What the intervals say between variants, in words; empty with one variant."""
    said = [
        f"{code(pair['first'])} against {code(pair['second'])}: {words(pair['verdict'])}"
        for pair in evaluation.get("comparisons") or ()
        if BASE not in (pair["first"], pair["second"]) and pair.get("verdict")
    ]
    return f"{'; '.join(said)}.\n\n" if said else ""


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
    return (
        f"## Held-out preferences\n\n{table(columns, rows)}\n\n{pairs} pairs, the same for all; "
        "± is the standard error over pairs of each figure alone, not of a difference. Margins of objectives with "
        "different rewards do not compare."
    )


def _curves(variants: Sequence[CardFacts]) -> str:
    drawn = twin_curves({facts.variant: facts.metrics for facts in variants}, "")
    return f"## Curves\n\n![Held-out accuracies and margins over optimizer steps]({CURVES})" if drawn else ""


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


def _limits(variants: Sequence[CardFacts]) -> str:
    lines = [
        "One training run of each variant with one seed: the intervals do not hold what another seed would change.",
        "One setting of each variant: a comparison at one point says less than a frontier over settings.",
    ]
    if not variants[0].evaluation:
        lines.append("No answers were judged: held-out preferences alone do not say which variant answers better.")
    lines.append("The limits of each variant stand in its own card.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
