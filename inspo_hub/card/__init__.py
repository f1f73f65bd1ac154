"""The card room: what a run was and measured, as a README.md the Hub accepts, with its curves. Imports no torch."""

from __future__ import annotations

from inspo_hub.card.curves import Chart, Series, chart_grid, line_chart
from inspo_hub.card.embedded import published_lock, published_yaml, recipe_and_lock_from_card
from inspo_hub.card.facts import CardFacts, Twin
from inspo_hub.card.metadata import front_matter
from inspo_hub.card.page import model_page, twin_page
from inspo_hub.card.render import model_card, write_model_card
from inspo_hub.card.sections import papers_of
from inspo_hub.card.twins import frontier_chart, twin_card, write_twin_card

__all__ = [
    "CardFacts",
    "Chart",
    "Series",
    "Twin",
    "chart_grid",
    "front_matter",
    "frontier_chart",
    "line_chart",
    "model_card",
    "model_page",
    "papers_of",
    "published_lock",
    "published_yaml",
    "recipe_and_lock_from_card",
    "twin_card",
    "twin_page",
    "write_model_card",
    "write_twin_card",
]
