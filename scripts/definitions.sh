#!/usr/bin/env bash
# Fetches the Go modules in which the Gateway API and the network-policy-api publish their
# CustomResourceDefinitions, and prints a folder that leads to them. Exits 77 with the reason where that
# cannot be done here.
set -euo pipefail
out="${WEFT_CACHE:-$HOME/.cache/weft}/definitions"
modules=(
    "gateway-api v1.6.3 h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc="
    "network-policy-api v0.1.7 h1:obY2FTEidLXVdRYu7gJ4q1RYE57pBnrpMqoE2LZgp4g="
)
command -v go >/dev/null || { echo "Go is not installed"; exit 77; }
export GOTOOLCHAIN=local GOFLAGS=
mkdir -p "$out"
for module in "${modules[@]}"; do
    read -r name version sum <<<"$module"
    # Its folder and checksum are told even where the module wants a newer Go, which no definition does.
    told="$(cd "$out"; go mod download -json "sigs.k8s.io/$name@$version" || true)"
    field() { sed -nE "s/^\t\"$1\": \"(.*)\",?$/\1/p" <<<"$told"; }
    [ -n "$(field Dir)" ] || { echo "sigs.k8s.io/$name@$version cannot be fetched"; exit 77; }
    [ "$(field Sum)" = "$sum" ] || { echo "sigs.k8s.io/$name@$version is not what it was: $(field Sum)" >&2; exit 1; }
    ln -sfn "$(field Dir)" "$out/$name"
done
echo "$out"
