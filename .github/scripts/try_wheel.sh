#!/usr/bin/env bash
# The wheel of dist/ (or $DIST) in an environment and a folder that know nothing of this repository.
set -euo pipefail
wheel=$(echo "$(cd "${DIST:-dist}" && pwd)"/*.whl)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --disable-pip-version-check --quiet ${PIP_ARGUMENTS:-} "$wheel[plan]"
cd "$place"
venv/bin/inspo-hub --version
venv/bin/hf-inspo init quickstart mine
venv/bin/inspo-hub validate mine/quickstart.yaml
HF_HUB_OFFLINE=1 venv/bin/inspo-hub plan mine/quickstart.yaml --flavor cpu-upgrade
