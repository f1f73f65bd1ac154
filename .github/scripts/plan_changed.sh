#!/usr/bin/env bash
# The plan of every recipe that differs from $BASE, into the summary of the step; with $LABEL `plan` of all shipped ones.
# Trains nothing and pays nothing.
set -euo pipefail
recipes=()
if [ "${LABEL:-}" = plan ]; then
  while IFS= read -r file; do recipes+=("$file"); done < <(git ls-files -- 'recipes/*.yaml' ':!recipes/accelerate' ':(exclude,glob)recipes/**/_*')
else
  while IFS= read -r file; do recipes+=("$file"); done < <(
    git diff --name-only --diff-filter=d "$BASE"...HEAD -- 'recipes/*.yaml' ':!recipes/accelerate' ':(exclude,glob)recipes/**/_*'
  )
fi
if [ "${#recipes[@]}" -eq 0 ]; then
  echo "no recipe differs from $BASE"
  exit 0
fi
for recipe in "${recipes[@]}"; do
  inspo-hub validate "$recipe"
  inspo-hub plan "$recipe" --summary
done
