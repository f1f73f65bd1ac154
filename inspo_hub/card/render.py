"""`model_card`: the facts as one README.md, and the folder that holds it and its picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inspo_hub.card import sections
from inspo_hub.card.data import data
from inspo_hub.card.facts import CardFacts
from inspo_hub.card.limits import limits
from inspo_hub.card.metadata import front_matter
from inspo_hub.card.results import results
from inspo_hub.card.training_curves import training_charts, training_curves
from inspo_hub.hub import redact

CURVES = "report/curves.svg"
"""The picture, relative to the card."""


def model_card(facts: CardFacts) -> str:
    """The card of one variant: metadata the Hub accepts, and Markdown; no token and no path of this machine."""
    parts: list[Callable[[CardFacts], str]] = [
        sections.introduction,
        sections.usage,
        results,
        _curves,
        data,
        sections.cost,
        sections.recipe_and_lock,
        sections.reproduction,
        limits,
        sections.citations,
    ]
    body = "\n\n".join(text for part in parts if (text := part(facts)))
    return redact(f"{front_matter(facts)}\n{body}\n")


def write_model_card(folder: Path, facts: CardFacts) -> None:
    """Writes README.md and, where metrics were logged, report/curves.svg into a variant's output folder."""
    picture = training_curves(facts.metrics, f"Training of {facts.title}")
    write_card(folder, model_card(facts), {CURVES: picture} if picture else {})


def write_card(folder: Path, text: str, pictures: dict[str, str]) -> None:
    """A card and its pictures; the card last, so that it never refers to a picture that is not there."""
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(picture, encoding="utf-8", newline="\n")
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def _curves(facts: CardFacts) -> str:
    charts = training_charts(facts.metrics)
    if not charts:
        return ""
    names = ", ".join(chart.title.lower() for chart in charts)
    return f"## Training curves\n\n![Curves over optimizer steps: {names}]({CURVES})"
