"""The report of an output folder, of what lies on this disk: cards, pictures, and one page that holds it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub.describing import twins_recipe, write_cards
from inspo_hub.errors import InspoError

PAGE = "report/report.html"


@dataclass(frozen=True)
class Report:
    """Where the report is."""

    markdown: Path
    page: Path | None
    variants: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "markdown": str(self.markdown),
            "page": None if self.page is None else str(self.page),
            "variants": list(self.variants),
        }

    def lines(self) -> list[str]:
        return [str(path) for path in (self.markdown, self.page) if path is not None]


def write_report(output: Path, repos: Mapping[str, str], *, page: bool = True) -> Report:
    """Writes every trained variant's card, the comparison of several, and the same as a page; nothing is measured.

    Args:
        repos: variant -> the repository it is or will be published to.

    Raises:
        InspoError: the folder holds no trained variant.
    """
    facts = write_cards(output, repos)
    if not facts:
        raise InspoError(
            "there is nothing to report",
            where=str(output),
            expected="the output folder of a run, or of one of its variants, with a training that came to its end",
            fix="check the path, or run the recipe again: it goes on where it stopped",
        )
    recipe, folder = twins_recipe(output), output
    if recipe is not None and len(facts) == 1:
        recipe, folder = None, output / facts[0].variant  # one of the twins is trained: there is no comparison yet
    if page:
        from inspo_hub.card import model_page, twin_page

        text = model_page(facts[0]) if recipe is None else twin_page(recipe, facts)
        (folder / PAGE).parent.mkdir(exist_ok=True)
        (folder / PAGE).write_text(text, encoding="utf-8", newline="\n")
    return Report(folder / "README.md", folder / PAGE if page else None, tuple(one.variant for one in facts))
