"""Each test of this room has a data set cache of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from jaxtyping import install_import_hook

# Shapes are checked at run time in the modules whose signatures name them, where they were not imported before.
install_import_hook(
    [f"inspo_hub.pairs.{name}" for name in ("mixture", "overlong", "store", "report")], "beartype.beartype"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., str]:
    def write(rows: Sequence[dict[str, Any]], name: str = "pairs.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write
