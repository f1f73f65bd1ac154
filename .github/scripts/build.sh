#!/usr/bin/env bash
# The wheel and the source archive, in dist/ or $DIST.
set -euo pipefail
dist=${DIST:-dist}
rm -rf "$dist"
python -c 'import hatchling' 2>/dev/null ||
  python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt hatchling
python -m hatchling build --directory "$dist"
