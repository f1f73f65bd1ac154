"""`inspo-hub`, as `python -m tests.publishing.cli`: the console script may belong to another environment."""

from __future__ import annotations

import sys

from inspo_hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
