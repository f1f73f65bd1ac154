"""The report tab: the run's own card with its pictures, tables, recipe and lock, as safe HTML."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

CARD = "README.md"
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
# The card's own folds are let through; every other tag stays text.
_FOLD = re.compile(r"<p>&lt;details&gt;\n&lt;summary&gt;(.*?)&lt;/summary&gt;</p>")
_FOLD_END = "<p>&lt;/details&gt;</p>"
_PICTURE = re.compile(r'<img src="(report/[\w.-]+\.svg)" alt="([^"]*)" ?/?>')
_LINK = re.compile(r'<a href="(?!https://)[^"]*">(.*?)</a>')


def report_html(folder: Path) -> str:
    """The card in the run's folder; its pictures are drawn in the page, and only links to https stay links."""
    text = (folder / CARD).read_text(encoding="utf-8")
    text = _COMMENT.sub("", _FRONT_MATTER.sub("", text))
    html = str(_MARKDOWN.render(text))
    html = _FOLD.sub(r"<details><summary>\1</summary>", html).replace(_FOLD_END, "</details>")
    html = _PICTURE.sub(lambda found: _picture(folder, found[1], found[2]), html)
    html = _LINK.sub(r"\1", html)
    html = html.replace("<table>", '<div class="sp-scroll"><table class="sp-table">').replace(
        "</table>", "</table></div>"
    )
    return f'<section class="sp-report sp-prose">{html}</section>'


def _picture(folder: Path, name: str, words: str) -> str:
    file = folder / name
    if not file.is_file():
        return f"<em>{words}</em>"
    svg = file.read_text(encoding="utf-8")
    # The page has a switch for its theme, and the picture follows it instead of the system's.
    svg = svg.replace("@media (prefers-color-scheme: dark) {", ".dark {")
    return f'<figure class="sp-figure">{svg[svg.index("<svg") :]}</figure>'
