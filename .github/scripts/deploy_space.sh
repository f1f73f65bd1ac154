#!/usr/bin/env bash
# Brings spaces/compare to the Space $SPACE, which must exist; what is no longer here is removed there.
set -euo pipefail
hf upload "$SPACE" spaces/compare . --repo-type space --delete '*' \
  --commit-message "Deploy ${GITHUB_SHA:-from a checkout}"
