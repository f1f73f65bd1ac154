"""Markdown pieces that hold whatever text they are given: escaped words, code, tables, links, numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from inspo_hub.card.private import hide_paths

NOTHING = "–"
HUB = "https://huggingface.co"
_SPECIAL = re.compile(r"([\\`*\[\]$~#]|(?<!\w)_|_(?!\w))")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})(v\d+)?")


def words(text: str) -> str:
    """Text as one line of Markdown that shows it as it stands; arXiv numbers become links."""
    shown = _SPECIAL.sub(r"\\\1", " ".join(hide_paths(text).split()))
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ARXIV.sub(lambda match: arxiv_link(match[1]), shown)


def arxiv_link(number: str) -> str:
    return f"[arXiv:{number}](https://arxiv.org/abs/{number})"


def code(text: str) -> str:
    """Text as a code span, one line."""
    shown = " ".join(hide_paths(text).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    padding = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{padding}{shown}{padding}{ticks}"


def fenced(text: str, language: str) -> str:
    """Text as a code block, byte for byte but for its last newline; the fence is longer than any run in the text."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.removesuffix(chr(10))}\n{ticks}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready Markdown cells; the first column is aligned left, the others right."""
    assert all(len(row) == len(columns) for row in rows), "one cell per column"
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text.replace("\n", " "))


def folded(summary: str, body: str) -> str:
    """A block that opens on a click; its summary is HTML."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def repo_link(repo_id: str, *, kind: str = "model", sha: str | None = None) -> str:
    """A link to a repository on the Hub, at the commit where one is given, which is then named."""
    prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[kind]
    at = f"/tree/{sha}" if sha else ""
    return f"[{repo_id}]({HUB}/{prefix}{repo_id}{at})" + (f" at {code(sha[:12])}" if sha else "")


def number(value: float | None, form: str = ".3g") -> str:
    """A number in the given form with a real minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = format(value, form)
    return (text.removeprefix("-") if not text.strip("-+0.,%") else text).replace("-", "−").replace("e−", "e-")


def count(value: float | None) -> str:
    return number(value, ",.0f")


def interval(estimate: Mapping[str, Any] | None, form: str) -> str:
    """`value [low, high]` of an `Estimate.to_dict()`."""
    if not estimate or estimate.get("value") is None:
        return NOTHING
    low, high = estimate.get("low"), estimate.get("high")
    shown = number(estimate["value"], form)
    return shown if low is None or high is None else f"{shown} [{number(low, form)}, {number(high, form)}]"
