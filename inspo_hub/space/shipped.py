"""The Space's page, which comes with the package: found in a checkout and in a wheel alike."""

from __future__ import annotations

from pathlib import Path

APP = "app.py"


def space_page() -> Path:
    """`inspo_hub/_spaces/compare` of a wheel, `spaces/compare` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_spaces" / "compare"
    return installed if installed.is_dir() else package.parent / "spaces" / "compare"
