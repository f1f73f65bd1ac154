"""What was measured, as a card says it: held-out preferences before and after, win rates beside KL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inspo_hub.card.facts import (
    CardFacts,
    Record,
    adjusted_of,
    heldout_measures,
    opponent_of,
    system_of,
    win_rate_of,
)
from inspo_hub.card.markdown import NOTHING, code, count, interval, number, table, words
from inspo_hub.card.measured import latency_table, preference_tables

BASE = "base"
TIED = "tie"
_HELDOUT_ROWS = {
    "plain_accuracy": ("preference accuracy, plain", ".1%"),
    "conditioned_accuracy": ("preference accuracy, conditioned", ".1%"),
    "plain_margin": ("reward margin, plain", ".3f"),
    "conditioned_margin": ("reward margin, conditioned", ".3f"),
    "distillation_gap": ("distillation gap (conditioned − plain margin)", ".3f"),
    "plain_logp_per_token_chosen": ("log-probability of the chosen response, nats per token", ".3f"),
    "plain_logp_per_token_rejected": ("log-probability of the rejected response, nats per token", ".3f"),
    "loss": ("loss", ".4f"),
}


def headline(facts: CardFacts) -> str:
    """One sentence with the figures of this run, or that there are none."""
    before, after = heldout_measures(facts.summary)
    said = []
    if after.get("plain_accuracy") is not None:
        change = _at_the_start(facts, before, "plain_accuracy", ".1%")
        start = "" if change in (NOTHING, TIED) else f", {change} before training"
        share = with_error(after, "plain_accuracy", ".1%")
        said.append(f"it prefers the chosen answer in {share} of {count(after.get('pairs'))} held-out pairs{start}")
    system = system_of(facts.evaluation, facts.variant)
    won = win_rate_of(facts.evaluation, facts.variant)
    if system and won:
        rate = interval(won, ".1%")
        kl = f" at a KL of {interval(system['kl_from_base'], '.2f')} nats" if system.get("kl_from_base") else ""
        said.append(f"its answers win {rate} against {opponent_words(facts.evaluation)}{kl}{_verdict(facts)}")
    if not said:
        return "Nothing was measured on held-out data: no figure says how good it is."
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."


def results(facts: CardFacts) -> str:
    """The tables of what was measured; says so where nothing was."""
    parts = ["## Results"]
    before, after = heldout_measures(facts.summary)
    if after:
        parts.append(_heldout(facts, before, after))
    if facts.evaluation:
        parts.append(evaluation_tables(facts.evaluation, only=facts.variant))
    more = [preference_tables(facts.preferences, only=facts.variant), latency_table(facts.latency, only=facts.variant)]
    parts += filter(None, more)
    if len(parts) == 1:
        parts.append("Nothing was measured on held-out pairs and no answers were judged.")
    return "\n\n".join(parts)


def _heldout(facts: CardFacts, before: Record, after: Record) -> str:
    rows = [
        [label, _at_the_start(facts, before, metric, form), with_error(after, metric, form)]
        for metric, (label, form) in _HELDOUT_ROWS.items()
        if after.get(metric) is not None
    ]
    trained = (
        "*plain* scores an answer as the model is used, given the prompt alone; *conditioned* given the other answer "
        "as well" + (", as it was trained" if facts.conditioned else ", which was not trained here") + "."
    )
    note = f"{trained} ± is the standard error over pairs."
    if before and facts.starts_at_reference:
        note += (
            " Before training policy and reference are one model: plain margins are 0 but for rounding, which leaves "
            "accuracies to chance."
        )
    pairs = count(after.get("pairs"))
    heading = ["held-out preferences", "before", f"after step {after.get('step', '?')}"]
    return f"On {pairs} held-out pairs:\n\n{table(heading, rows)}\n\n{note}"


def _at_the_start(facts: CardFacts, before: Record, metric: str, form: str) -> str:
    """A figure from before the first step; where it is a tie by construction, that, not its rounding."""
    if before and facts.starts_at_reference and metric == "plain_accuracy":
        return TIED
    if before and facts.starts_at_reference and metric == "plain_margin":
        return "0"
    return with_error(before, metric, form)


def with_error(record: Record, metric: str, form: str) -> str:
    """The value with its standard error over pairs, where that follows from what was logged."""
    value, pairs = record.get(metric), record.get("pairs")
    if value is None:
        return NOTHING
    shown, error = number(value, form), None
    if pairs and pairs > 1:
        spread = record.get(f"{metric.removesuffix('_accuracy').removesuffix('_margin')}_margin_std")
        if metric.endswith("_accuracy") and spread != 0:  # all margins equal: ties, known without error
            error = math.sqrt(max(0.0, value * (1 - value)) / pairs)
        elif spread:
            error = spread / math.sqrt(pairs)
    return f"{shown} ± {number(error, form)}" if error else shown


def evaluation_tables(evaluation: Mapping[str, Any], *, only: str | None = None) -> str:
    """Win rate beside KL of every system, and the comparisons of one of them (of all without `only`), in words too."""
    labels = list(
        dict.fromkeys(label for one in evaluation["systems"] for label in adjusted_of(evaluation, one["name"]))
    )
    rows = [
        [
            code(system["name"]),
            interval(win_rate_of(evaluation, system["name"]), ".1%"),
            *(interval(adjusted_of(evaluation, system["name"]).get(label), ".1%") for label in labels),
            interval(system.get("kl_from_base"), ".2f"),
            interval(system.get("score"), ".2f"),
            number(system.get("mean_tokens"), ".1f"),
            number(system.get("well_formed"), ".1%"),
        ]
        for system in evaluation["systems"]
    ]
    won = f"win rate against {words(opponent_of(evaluation))}"
    columns = ["answers", won, *map(words, labels), "KL from base, nats", "judge's score", "tokens", "well-formed"]
    parts = [table(columns, rows)]
    pairs = [pair for pair in evaluation.get("comparisons", ()) if only in (None, pair["first"], pair["second"])]
    if pairs:
        compared = [
            [
                f"{code(pair['first'])} against {code(pair['second'])}",
                interval(pair["win_rate"], ".1%"),
                interval(pair.get("score_difference"), "+.2f"),
                words(pair.get("verdict", NOTHING)),
            ]
            for pair in pairs
        ]
        parts.append(table(["head to head", "win rate of the first", "difference of scores", "so"], compared))
    parts.append(_method(evaluation))
    return "\n\n".join(parts)


def _method(evaluation: Mapping[str, Any]) -> str:
    settings = evaluation.get("settings") or {}
    temperature = settings.get("temperature")
    drawn = "" if temperature is None else f", temperature {number(temperature, 'g')}"
    level = settings.get("interval")
    judge = code(str(evaluation.get("judge", "unknown")))
    ends = f"In brackets are {level:.0%} bootstrap intervals over prompts. " if level is not None else ""
    return (
        f"{count(evaluation.get('prompts'))} prompts{drawn}, judged by {judge}; "
        f"ties count half. {ends}“no difference” means that the interval holds it, not that there is none. "
        "KL is that of a system's own samples from the base, per answer."
    )


def opponent_words(evaluation: Mapping[str, Any] | None) -> str:
    """Whom the answers compete with, within a sentence."""
    opponent = opponent_of(evaluation)
    return "the base" if opponent == BASE else code(opponent)


def _verdict(facts: CardFacts) -> str:
    """What the interval says, in words."""
    names = (facts.variant, opponent_of(facts.evaluation))
    pairs = (facts.evaluation or {}).get("comparisons") or ()
    verdict = next((pair.get("verdict") for pair in pairs if {pair["first"], pair["second"]} == set(names)), None)
    return f" ({words(verdict)})" if verdict else ""
