#!/usr/bin/env bash
# Builds the tests' client of the Container Runtime Interface (crates/cni/tests/cri) from Kubernetes' own
# messages, into $WEFT_CACHE/cri-client, with Go's build cache beside it, and prints its path. Built once for
# each state of the module. Exits 77 with the reason where it cannot be built here.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root/crates/cni/tests/cri"

cache="${WEFT_CACHE:-$HOME/.cache/weft}"
out="$cache/cri-client"
export GOCACHE="$cache/go-build" GOFLAGS="-p=2" GOTOOLCHAIN=local CGO_ENABLED=0

command -v go >/dev/null || { echo "Go is not installed"; exit 77; }
stamp="$( (go env GOVERSION GOARCH; cat go.mod go.sum main.go "$root/scripts/cri-client.sh") | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
    mkdir -p "$out"
    log="$(mktemp)"
    trap 'rm -f "$log"' EXIT
    nice -n 15 go build -trimpath -ldflags "-s -w" -o "$out/cri" . >"$log" 2>&1 ||
        { echo "the CRI client cannot be built: $(tail -n 1 "$log")"; exit 77; }
    echo "$stamp" >"$out/stamp"
fi
echo "$out/cri"
