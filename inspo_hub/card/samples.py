"""The first answers of an evaluation, side by side: for the comparison's Markdown, and for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inspo_hub.card.diff import as_html, diff_html, diff_text
from inspo_hub.card.markdown import code, fenced, number
from inspo_hub.card.results import BASE

SHOWN = 5
"""Prompts shown, the first of the evaluation: chosen before anybody has seen an answer."""
SYSTEMS = 6
Row = Mapping[str, Any]
"""One line of generations.jsonl."""


def samples(rows: Sequence[Row]) -> str:
    """A section with the answers as text, and what the second variant says otherwise than the first; may be empty."""
    if not rows:
        return ""
    parts = ["## Samples", f"{_choice(rows)} {_marks(rows)}"]
    for number_of, row in enumerate(rows[:SHOWN], start=1):
        parts.append(f"### Prompt {number_of}\n\n{fenced(prompt_text(row), 'text')}")
        answers = {name: str(row["responses"][name]) for name in _systems(row)}
        parts += [f"{_heading(row, name)}\n\n{fenced(text, 'text')}" for name, text in answers.items()]
        compared = [name for name in answers if name != BASE][:2]
        if len(compared) == 2:
            first, second = compared
            what = f"from {code(first)} to {code(second)}:"
            parts.append(f"{what}\n\n{fenced(diff_text(answers[first], answers[second]), 'text')}")
    return "\n\n".join(parts)


def samples_html(rows: Sequence[Row]) -> str:
    """The same as HTML: every variant beside the first one, their words compared."""
    if not rows:
        return ""
    parts = ["<h2>Samples</h2>", f"<p>{as_html(_choice(rows))} {_MARKED}</p>"]
    for number_of, row in enumerate(rows[:SHOWN], start=1):
        parts.append(f'<h3>Prompt {number_of}</h3>\n<div class="prompt">{as_html(prompt_text(row))}</div>')
        parts.append('<div class="answers">' + "".join(_answers_html(row)) + "</div>")
    return "\n".join(parts)


_MARKED = (
    "Beside the first variant, words that only it has are <del>struck out</del>, and words that only the other has "
    "<ins>underlined</ins>."
)


def _answers_html(row: Row) -> list[str]:
    names = _systems(row)
    answers = {name: str(row["responses"][name]) for name in names}
    variants = [name for name in names if name != BASE]
    cells = []
    for name in names:
        shown = as_html(answers[name])
        if len(variants) > 1 and name in variants:
            is_first = name == variants[0]
            compared = diff_html(answers[variants[0]], answers[variants[1] if is_first else name])
            shown = compared[0 if is_first else 1]
        score = _score(row, name)
        cells.append(f'<div class="answer"><h4>{as_html(name)}<span>{as_html(score)}</span></h4><p>{shown}</p></div>')
    return cells


def prompt_text(row: Row) -> str:
    """The prompt as people read it: one turn as it is, several with who says them."""
    messages = row["prompt"]
    if isinstance(messages, str):
        return messages
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _systems(row: Row) -> list[str]:
    return list(row["responses"])[:SYSTEMS]


def _heading(row: Row, name: str) -> str:
    score = _score(row, name)
    return f"{code(name)}{f', {score}' if score else ''}:"


def _score(row: Row, name: str) -> str:
    score = (row.get("scores") or {}).get(name)
    return "" if score is None else f"judged {number(float(score), '.3g')}"


def _choice(rows: Sequence[Row]) -> str:
    left_out = len(rows[0]["responses"]) - SYSTEMS
    more = f" {left_out} more variants answered, and are not shown." if left_out > 0 else ""
    return f"The first {min(SHOWN, len(rows))} prompts of the evaluation, not chosen by their answers.{more}"


def _marks(rows: Sequence[Row]) -> str:
    several = len([name for name in rows[0]["responses"] if name != BASE]) > 1
    return "In the comparison of two, `[-words-]` are the first's only, `{+words+}` the second's only." * several
