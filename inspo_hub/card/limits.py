"""What a card must not be taken to say: what was not measured, and how little the measurements can tell."""

from __future__ import annotations

import math
from collections.abc import Iterator

from inspo_hub.card.facts import CardFacts, adjusted_of, heldout_measures, system_of
from inspo_hub.card.markdown import code, count, words
from inspo_hub.card.private import shown_name

FEW_PAIRS = 1000
"""Below this many held-out pairs an accuracy is known to no better than ± 3 points (two standard errors at 50 %)."""


def limits(facts: CardFacts) -> str:
    """The section, derived from what is and what is not there."""
    found = [*_measurements(facts), *_training(facts), *_data(facts)]
    found.append("Safety, bias, truthfulness, other languages and other abilities of the base were not measured.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in found)


def _measurements(facts: CardFacts) -> Iterator[str]:
    _, after = heldout_measures(facts.summary)
    pairs = after.get("pairs")
    if not pairs:
        yield "Preferences were not measured on held-out pairs."
    elif pairs < FEW_PAIRS:
        points = 200 * math.sqrt(0.25 / pairs)
        yield (
            f"{count(pairs)} held-out pairs are few: an accuracy near 50 % is known to about ± {points:.1f} points "
            "(two standard errors)."
        )
    system = system_of(facts.evaluation, facts.variant)
    if system is None:
        yield "No answers were generated and judged: there is no win rate, and the KL from the base is unknown."
    else:
        if not system.get("kl_from_base"):
            yield "The KL from the base was not measured; a win rate without it says little."
        yield (
            f"The win rate is by one judge, {code(str((facts.evaluation or {}).get('judge', 'unknown')))}, on "
            f"{count((facts.evaluation or {}).get('prompts'))} prompts"
            + ("." if adjusted_of(facts.evaluation, facts.variant) else "; it is not controlled for length.")
        )
    yield "One training run with one seed: the intervals do not hold what another seed would change."


def _training(facts: CardFacts) -> Iterator[str]:
    recipe = facts.recipe
    if facts.conditioned:
        yield (
            "Trained given an alternative answer, used without one: π(·|x) is what is served, and conditioned figures "
            "say how it was trained, not how it answers."
        )
    for caution in recipe.cautions:
        yield words(caution[:1].upper() + caution[1:]) + "."
    if recipe.model.trust_remote_code:
        name = shown_name(facts.base)
        at = f" at commit {code(facts.base.sha)}" if facts.base.sha else ""
        yield f"`trust_remote_code` was on: loading it runs Python code from {code(name)}{at}."
    license_known = facts.base_metadata is not None and facts.base_metadata.license
    if not license_known:
        yield "The license of the base is not known; this model inherits it all the same."


def _data(facts: CardFacts) -> Iterator[str]:
    report = facts.data_report or {}
    trained = report.get("train_pairs")
    if trained is not None and trained < FEW_PAIRS:
        yield f"{count(trained)} different training pairs are few."
    truncated = (report.get("truncated") or {}).get("count", 0)
    if truncated:
        yield f"{count(truncated)} pairs were truncated to {count(report.get('max_length'))} tokens."
    leaked = (report.get("leaked_prompts") or {}).get("count", 0)
    if leaked:
        yield f"{count(leaked)} held-out prompts are also training prompts: held-out figures are too good."
    bias = (report.get("length_bias") or {}).get("chosen_longer")
    if bias is not None and abs(bias - 0.5) > 0.1:
        yield f"Chosen answers are the longer ones in {bias:.0%} of the pairs: length may have been learned."
