#!/usr/bin/env bash
# The tests behind the `gpu` mark.
set -euo pipefail
python -m pytest -m gpu "$@"
