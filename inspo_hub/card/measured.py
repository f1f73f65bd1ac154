"""Tables of what was measured beside judged answers: held-out preferences in several contexts, time of answering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inspo_hub.card.markdown import NOTHING, code, count, number, table, words

BASE = "base"
ORDER = ("plain", "seen", "own", "other_prompt", "truncated", "empty", "shuffled")
"""Contexts in the order of the tables."""
Found = Mapping[str, Any]


def preference_tables(preferences: Found | None, *, only: str | None = None) -> str:
    """`PreferenceResult.to_dict()` as Markdown, of one variant or of all; empty where nothing was measured."""
    if not preferences:
        return ""
    names = [name for name in preferences["systems"] if only in (None, name) or name == BASE]
    parts = ["### Preferences in other contexts", _what(preferences), _accuracies(preferences, names)]
    parts.append(_margins(preferences, [name for name in names if name != BASE]))
    parts.append(_lengths(preferences, names))
    if only is None and (said := list(_verdicts(preferences))):
        parts.append("\n".join(f"- {line}" for line in said))
    return "\n\n".join(parts)


def _what(preferences: Found) -> str:
    said = preferences["contexts"]
    listed = "; ".join(f"*{_heading(name)}*: {words(said[name])}" for name in _contexts(preferences))
    longer = number(preferences["longer_chosen"], ".1%")
    return (
        f"{count(preferences['pairs'])} held-out pairs of {count(preferences['prompts'])} prompts; the chosen answer "
        f"is the longer one in {longer}. Both answers are scored after the prompt and then: {listed}. "
        "A margin is log π/π_base of the chosen answer less that of the rejected one, with the base **in the same "
        "context**, in nats and without β; an accuracy is the share of pairs with a margin above 0, a tie a half. The "
        "base has no margin against itself: its accuracies are by log π alone. ± is the standard error, clustered by "
        "prompt."
    )


def _accuracies(preferences: Found, names: Sequence[str]) -> str:
    contexts = _contexts(preferences)
    rows = []
    for name in names:
        found = preferences["systems"][name]
        key = "accuracy_without_reference" if name == BASE else "accuracy"
        rows.append([code(name), *(_with_error(found.get(context, {}).get(key), ".1%") for context in contexts)])
    return table(["accuracy", *map(_heading, contexts)], rows)


def _margins(preferences: Found, names: Sequence[str]) -> str:
    contexts = _contexts(preferences)
    rows = [
        [
            code(name),
            *(_with_error(preferences["systems"][name].get(context, {}).get("margin"), ".3f") for context in contexts),
            _with_error(preferences["distillation_gaps"].get(name), ".3f"),
        ]
        for name in names
    ]
    return table(["margin, nats", *map(_heading, contexts), "distillation gap (seen − plain)"], rows)


def _lengths(preferences: Found, names: Sequence[str]) -> str:
    columns = {
        "chosen_longer": "chosen is longer",
        "chosen_shorter": "chosen is shorter",
        "accuracy_without_reference": "by log π alone",
        "accuracy_per_token": "by log π per token",
    }
    rows = []
    for name in names:
        plain = preferences["systems"][name]["plain"]
        rows.append([code(name), *(_with_error(plain[key], ".1%") for key in columns)])
    return table(["accuracy, plain", *columns.values()], rows)


def _verdicts(preferences: Found) -> Iterator[str]:
    pairs: dict[tuple[str, str], list[str]] = {}
    for each in preferences["differences"]:
        said = f"{_heading(each['context'])} {_with_error(each['accuracy'], '+.1%')}: {words(each['verdict'])}"
        pairs.setdefault((each["first"], each["second"]), []).append(said)
    for (first, second), said_of in pairs.items():
        yield f"{code(first)} against {code(second)}, difference of accuracies: {'; '.join(said_of)}."


def _contexts(preferences: Found) -> list[str]:
    return [name for name in ORDER if name in preferences["contexts"]]


def _heading(context: str) -> str:
    return context.replace("_", " ")


def _with_error(estimate: Found | None, form: str) -> str:
    if not estimate or estimate.get("value") is None:
        return NOTHING
    error = estimate.get("standard_error")
    return number(estimate["value"], form) + (f" ± {number(error, form.removeprefix('+'))}" if error else "")


def latency_table(latency: Found | None, *, only: str | None = None) -> str:
    """`LatencyResult.to_dict()` as Markdown, of one variant or of all; empty where nothing was measured."""
    if not latency:
        return ""
    variants = {name: found for name, found in latency["variants"].items() if only in (None, name)}
    work = latency["workload"]
    rows = [
        [
            code(name),
            *(_milliseconds(found[key]) for key in ("first_token_s", "token_s")),
            *(_ratio(found[key]) for key in ("first_token_ratio", "token_ratio")),
            words(found["verdict"]),
        ]
        for name, found in variants.items()
    ]
    columns = ["answering", "first token, ms", "next token, ms", "first token ÷ base", "next token ÷ base", "so"]
    how = (
        f"{count(work['prompt_tokens'])} prompt tokens, {count(work['new_tokens'])} new ones, "
        f"{count(work['batch_size'])} at a time, on {words(latency['device'])}: medians of {count(work['rounds'])} "
        "rounds of the base and the variant in turn, in one process by the same call. In brackets are the middle half "
        "of the times, and the 95 % interval of a median ratio; the words are about the next token."
    )
    return "\n\n".join(["### Time of answering", table(columns, rows), how, *_sameness(latency, variants)])


def _sameness(latency: Found, variants: Mapping[str, Found]) -> Iterator[str]:
    base = latency["base"]
    stored = ", ".join(base["dtypes"])
    yield (
        f"The base is {code(base['architecture'])} with {count(base['parameters'])} parameters stored as {stored}, "
        f"{count(base['weight_bytes'] / 1e6)} MB in memory as it was timed."
    )
    lines = []
    for name, found in variants.items():
        if found["differences"]:
            lines.append(f"- {code(name)} differs: {words('; '.join(found['differences']))}.")
    same = [name for name, found in variants.items() if not found["differences"]]
    if same:
        what = "architecture, number of parameters and stored number format"
        lines.insert(0, f"- the same {what} as the base: {', '.join(map(code, same))}.")
    yield "\n".join(lines)


def _milliseconds(spread: Found) -> str:
    return _bracketed({key: 1000 * value for key, value in spread.items()}, ".3g")


def _ratio(spread: Found) -> str:
    return _bracketed(spread, ".3f")


def _bracketed(spread: Found, form: str) -> str:
    low, median, high = (number(spread[key], form) for key in ("low", "median", "high"))
    return f"{median} [{low}, {high}]"
