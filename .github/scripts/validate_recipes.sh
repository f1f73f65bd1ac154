#!/usr/bin/env bash
# Every shipped recipe, by the package and by the JSON schema that editors use. Names with a leading _ are parts of others.
set -euo pipefail
recipes=()
while IFS= read -r file; do recipes+=("$file"); done < <(find recipes -name '*.yaml' -not -path 'recipes/accelerate/*' -not -name '_*' | sort)
for recipe in "${recipes[@]}"; do
  inspo-hub validate "$recipe"
done
check-jsonschema --schemafile recipes/recipe.schema.json "${recipes[@]}"
