#!/usr/bin/env bash
# The workflows by their schema, and by what is known to go wrong in them. No network.
set -euo pipefail
check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
zizmor --offline --no-progress --quiet --persona pedantic .github
