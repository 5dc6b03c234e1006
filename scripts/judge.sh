#!/usr/bin/env bash
# The differential test of Weft's API server against the real one: tests/kubernetes/README.md.
# usage: scripts/judge.sh [FILTER]...
set -euo pipefail
cd "$(dirname "$0")/.."
WEFT_KUBERNETES="$(scripts/kubernetes.sh)"
export WEFT_KUBERNETES
if WEFT_DEFINITIONS="$(scripts/definitions.sh)"; then
    export WEFT_DEFINITIONS
else
    echo "cases of published definitions are left out: $WEFT_DEFINITIONS" >&2
fi
exec cargo test --locked -q -p weft-apiserver --test judge -- "$@"
