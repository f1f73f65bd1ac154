"""Two answers side by side: which words only one of them has. Texts are shown as they are, never as markup."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from html import escape
from typing import Literal

Side = Literal["both", "first", "second"]
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
MAX_WORDS = 4000
"""Of both texts together: comparing takes the square of it. Longer ones are shown without a comparison."""


def word_diff(first: str, second: str) -> list[tuple[Side, str]]:
    """Runs of words in order: of both texts, of the first only, of the second only; words, spaces and signs count."""
    if first == second:
        return [("both", first)] if first else []
    left, right = _WORDS.findall(first), _WORDS.findall(second)
    if len(left) + len(right) > MAX_WORDS:
        return [("first", first), ("second", second)]
    runs: list[tuple[Side, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            runs.append(("both", "".join(left[a:b])))
            continue
        runs += [("first", "".join(left[a:b]))] if a < b else []
        runs += [("second", "".join(right[c:d]))] if c < d else []
    return runs


def as_html(text: str) -> str:
    """Text as HTML that shows it: markup escaped, and control characters, which no page may hold, by a box."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text))


def diff_html(first: str, second: str) -> tuple[str, str]:
    """Both texts as HTML: what only the first has in `<del>`, what only the second has in `<ins>`, all else escaped."""
    runs = word_diff(first, second)
    return "".join(_marked(runs, "first", "del")), "".join(_marked(runs, "second", "ins"))


def _marked(runs: list[tuple[Side, str]], own: Side, tag: str) -> Iterator[str]:
    for side, text in runs:
        if side == own:
            yield f"<{tag}>{as_html(text)}</{tag}>"
        elif side == "both":
            yield as_html(text)


def diff_text(first: str, second: str) -> str:
    """Both as one text, as `git diff --word-diff` writes it: `[-first-]{+second+}`."""
    marks = {"both": "{}", "first": "[-{}-]", "second": "{{+{}+}}"}
    return "".join(marks[side].format(text) for side, text in word_diff(first, second))
