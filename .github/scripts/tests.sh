#!/usr/bin/env bash
# The tests that need no GPU and no Hub account; with $ONLY, those whose names match.
set -euo pipefail
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
python -m pytest -n 2 --dist loadfile -m 'not gpu and not hub' ${ONLY:+-k "$ONLY"} "$@"
