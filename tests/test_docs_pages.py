"""Generated pages say what the code says."""

from __future__ import annotations

import pytest

from tests.docs_pages import DOCS, PAGES


@pytest.mark.parametrize("file", sorted(PAGES))
def test_a_generated_page_is_that_of_the_code(file: str) -> None:
    assert (DOCS / file).read_text(encoding="utf-8") == PAGES[file](), "run python -m tests.docs_pages"
