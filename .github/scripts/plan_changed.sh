#!/usr/bin/env bash
# The plan of every recipe that differs from $BASE, into the summary of the step. Trains nothing and pays nothing.
set -euo pipefail
changed=()
while IFS= read -r file; do changed+=("$file"); done < <(
  git diff --name-only --diff-filter=d "$BASE"...HEAD -- 'recipes/*.yaml' ':!recipes/accelerate'
)
if [ "${#changed[@]}" -eq 0 ]; then
  echo "no recipe differs from $BASE"
  exit 0
fi
for recipe in "${changed[@]}"; do
  inspo-hub validate "$recipe"
  inspo-hub plan "$recipe" --summary
done
