#!/usr/bin/env bash
# Builds the real kube-apiserver, kube-controller-manager, kube-scheduler and kube-proxy of tests/kubernetes
# into $WEFT_CACHE/kubernetes, with Go's build cache beside it, and prints that folder. Built once for each
# state of the module. Exits 77 with the reason where they cannot be built here.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root/tests/kubernetes"

cache="${WEFT_CACHE:-$HOME/.cache/weft}"
out="$cache/kubernetes"
export GOCACHE="$cache/go-build" GOFLAGS="-p=2" GOTOOLCHAIN=local CGO_ENABLED=0

command -v go >/dev/null || { echo "Go is not installed"; exit 77; }
command -v etcd >/dev/null || { echo "etcd is not installed (scripts/install-deps.sh)"; exit 77; }
wanted="$(sed -nE 's/^go ([0-9.]+)$/\1/p' go.mod)"
have="$(go env GOVERSION | sed 's/^go//')"
if [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "Go $have is older than $wanted, which this Kubernetes needs"
    exit 77
fi

stamp="$( (go env GOVERSION GOARCH; cat go.mod go.sum cmd/*/main.go "$root/scripts/kubernetes.sh") | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
    version="$(go list -m -f '{{.Version}}' k8s.io/kubernetes)"
    major_minor="${version#v}"
    flags="-s -w"
    for pair in "gitVersion=$version" "gitMajor=${major_minor%%.*}" "gitMinor=$(cut -d. -f2 <<<"$major_minor")"; do
        flags+=" -X k8s.io/component-base/version.$pair"
    done
    mkdir -p "$out"
    nice -n 15 go build -trimpath -ldflags "$flags" -o "$out/" ./cmd/... >&2
    echo "$stamp" >"$out/stamp"
fi
echo "$out"
