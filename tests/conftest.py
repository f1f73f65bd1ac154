"""Shared set-up of the tests: shapes checked at run time, one torch thread, loopback only."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
os.environ.setdefault("HF_HUB_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
# Large files go by LFS unless a test asks for Xet in a subprocess: the client reads this when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# TRL reports each trainer that is built; nothing in a test leaves the machine.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

pytest_plugins = ["tests.hub_server.fixtures"]
