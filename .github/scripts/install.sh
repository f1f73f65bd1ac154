#!/usr/bin/env bash
# Installs this checkout with the extras named in $EXTRAS (none where it is empty), as pinned in $CONSTRAINTS (constraints.txt).
set -euo pipefail
python -m pip install --disable-pip-version-check --constraint "${CONSTRAINTS:-constraints.txt}" --editable ".${EXTRAS:+[$EXTRAS]}"
