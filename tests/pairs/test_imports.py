"""Importing the room is light: what its names need is imported when they are used."""

from __future__ import annotations

import subprocess
import sys


def test_importing_pairs_imports_no_heavy_package() -> None:
    code = (
        "import sys; from inspo_hub.pairs import PairSource, PreferencePair; import inspo_hub.pairs;"
        "print(sorted({'torch', 'datasets', 'numpy', 'transformers', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    import inspo_hub.pairs as pairs

    for name in pairs.__all__:
        assert getattr(pairs, name) is not None
