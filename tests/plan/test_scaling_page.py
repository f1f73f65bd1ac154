"""docs/scaling.md says what the cost model says."""

from __future__ import annotations

from tests.scaling_page import PAGE, page


def test_the_page_has_the_tables_of_the_cost_model() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.scaling_page"
