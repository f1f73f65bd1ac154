#!/usr/bin/env bash
# Brings page and package of this checkout to the Space $SPACE, which `inspo-hub space deploy` has made once.
set -euo pipefail
inspo-hub space update "$SPACE"
