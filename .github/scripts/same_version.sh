#!/usr/bin/env bash
# Refuses a release whose tag is not the version of the wheel.
set -euo pipefail
wheel=$(basename "${DIST:-dist}"/*.whl)
version=$(echo "$wheel" | cut -d - -f 2)
if [ "${TAG#v}" != "$version" ]; then
  echo "the tag $TAG is not version $version of $wheel" >&2
  exit 1
fi
