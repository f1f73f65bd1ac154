"""`python -m tests.bench`: nothing leaves the machine, and only figures are printed."""

from __future__ import annotations

import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")
warnings.filterwarnings("ignore")  # other libraries' deprecations

from tests.bench.cli import main  # noqa: E402  (libraries read the environment when they are imported)

sys.exit(main())
