"""`python -m inspo_hub.run RECIPE …` and `accelerate launch -m inspo_hub.run RECIPE …`: the same as `inspo-hub run`."""

from __future__ import annotations

import sys

from inspo_hub.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
