"""Which files of an output folder a save is made of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.publish.contents import files_below

from ..hub.conftest import write_files


def test_hidden_folders_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher's worker removes snapshots from its spool, within the output, while a save is being listed."""
    write_files(
        tmp_path,
        {name: b"" for name in ("b", "report/a.svg", ".eval_results/x.yaml", ".publish/1/save/model", ".hidden")},
    )
    seen: list[Path] = []
    scandir = os.scandir

    def watched(path: Any) -> Any:
        seen.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    assert files_below(tmp_path) == [".eval_results/x.yaml", "b", "report/a.svg"]
    assert sorted(seen) == sorted(tmp_path / each for each in (".", ".eval_results", "report"))
