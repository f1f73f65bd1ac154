#!/usr/bin/env bash
# Plans the recipe and says, as the output `new`, whether its data differ from those that its published models saw.
set -euo pipefail
if python .github/scripts/new_votes.py "$RECIPE"; then
  inspo-hub plan "$RECIPE" --max-usd "$MAX_USD" --summary
  echo "new=true" >> "$GITHUB_OUTPUT"
else
  code=$?
  [ "$code" -eq 10 ] || exit "$code"
  echo "new=false" >> "$GITHUB_OUTPUT"
fi
