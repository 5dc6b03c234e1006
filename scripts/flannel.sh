#!/usr/bin/env bash
# Builds flanneld of release 0.28.10 from Go's module registry into $WEFT_CACHE/flannel, with Go's build
# cache beside it, and prints its path. Its udp backend is C and made for amd64 only. Built once for each
# release and compiler. Exits 77 with the reason where it cannot be built here.
set -euo pipefail
release=v0.28.10
module=github.com/flannel-io/flannel

cache="${WEFT_CACHE:-$HOME/.cache/weft}"
out="$cache/flannel"
export GOCACHE="$cache/go-build" GOFLAGS="-p=2 -mod=mod" GOTOOLCHAIN=local CGO_ENABLED=0

command -v go >/dev/null || { echo "Go is not installed"; exit 77; }
if [ "$(go env GOARCH)" = amd64 ] && command -v gcc >/dev/null; then export CGO_ENABLED=1; fi
stamp="$release $(go env GOVERSION GOARCH CGO_ENABLED | tr '\n' ' ')"
if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
    module_folder="$(mktemp -d)"
    trap 'rm -rf "$module_folder"' EXIT
    (
        cd "$module_folder"
        go mod init flanneld >/dev/null 2>&1
        go mod edit -require "$module@$release"
        go mod download "$module"
        # Its own main, but for the backend of one cloud, whose client is in few registries.
        grep -v backend/tencentvpc "$(go list -m -f '{{.Dir}}' "$module")/main.go" >main.go
        mkdir -p "$out"
        nice -n 15 go build -trimpath -ldflags "-s -w" -o "$out/flanneld" .
    ) >"$module_folder/log" 2>&1 || { echo "flannel cannot be built: $(tail -n 1 "$module_folder/log")"; exit 77; }
    echo "$stamp" >"$out/stamp"
fi
echo "$out/flanneld"
