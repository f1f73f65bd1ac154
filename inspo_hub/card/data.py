"""The data of a card: which rows at which commit, what was done to them, what to know about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspo_hub.card.facts import CardFacts
from inspo_hub.card.markdown import code, count, number, repo_link, table, words
from inspo_hub.card.private import hide_paths, shown_name

if TYPE_CHECKING:
    from inspo_hub.hub import Pinned


def data(facts: CardFacts) -> str:
    """Which data at which commit, how much of it was used, what was cut, and its length bias."""
    parts = ["## Data", data_sources(facts)]
    if facts.data_report is None:
        parts.append("No data report was kept.")
    else:
        parts += data_report(facts.data_report)
    return "\n\n".join(part for part in parts if part)


def data_sources(facts: CardFacts) -> str:
    """A list of the data sets with their commits; empty where they are not known."""
    return "\n".join([*_sources("training", facts.train), *_sources("held out", facts.heldout)])


def _sources(role: str, pins: Sequence[Pinned]) -> Iterator[str]:
    for pin in pins:
        name = f"{code(shown_name(pin))} (a local file or folder)" if pin.is_local else None
        yield f"- {role}: {name or repo_link(pin.id, kind='dataset', sha=pin.sha)}"


def data_report(report: Mapping[str, Any]) -> list[str]:
    """Paragraphs and tables of `DataReport.to_dict()`."""
    used = f"{count(report.get('train_pairs'))} training pairs and {count(report.get('heldout_pairs'))} held out"
    left = sum(source["rows"] for source in report.get("sources", ())) - report.get("train_pairs", 0)
    left -= report.get("heldout_pairs", 0)
    parts = [f"{used}; {count(left)} rows were left out." if left >= 0 else f"{used}."]
    found = [[words(name), count(number_of)] for name, number_of in _findings(report)]
    parts.append(table(["rows", ""], found) if found else "No row was empty, doubled, cut or leaked.")
    lengths = report.get("tokens") or {}
    if lengths:
        rows = [
            [part, *(number(stats.get(p), ".0f") for p in ("p50", "p95", "p100"))] for part, stats in lengths.items()
        ]
        parts.append(table(["tokens", "median", "95th percentile", "longest"], rows))
    bias = report.get("length_bias") or {}
    if bias:
        parts.append(
            f"The chosen answer is the longer one in {number(bias.get('chosen_longer'), '.1%')} of the pairs "
            f"(mean length {number(bias.get('mean_chosen'), '.0f')} against "
            f"{number(bias.get('mean_rejected'), '.0f')} tokens)."
        )
    notes = report.get("notes") or ()
    if notes:
        parts.append("\n".join(f"- {words(note)}" for note in notes))
    return parts


_FINDINGS = {
    "duplicate": "equal to an earlier row, kept",
    "contradicting": "contradicted by another row, kept",
    "overlong": "longer than max_length",
    "truncated": "truncated",
    "responses_cut": "truncated in a response, end token included",
    "leaked_prompts": "held-out prompt is also a training prompt",
    "near_leaked_prompts": "held-out prompt equals a training prompt but for case and punctuation",
}


def _findings(report: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """What was found in rows, by kind, where it was found at all."""
    for kind, rows in (report.get("invalid") or {}).items():
        if rows["count"]:
            yield f"left out: {hide_paths(kind).replace('_', ' ')}", rows["count"]
    for key, label in _FINDINGS.items():
        if (report.get(key) or {}).get("count"):
            yield label, report[key]["count"]
    for part, tokens in (report.get("truncated_tokens") or {}).items():
        if tokens:
            yield f"tokens cut from: {part}", tokens
