#!/usr/bin/env bash
# Builds the reference CNI plugins of release 1.9.1 from Go's module registry into
# $WEFT_CACHE/reference-plugins, with Go's build cache beside it, and prints that folder. Built once for
# each release and compiler. Exits 77 with the reason where they cannot be built here.
set -euo pipefail
release=v1.9.1
module=github.com/containernetworking/plugins

cache="${WEFT_CACHE:-$HOME/.cache/weft}"
out="$cache/reference-plugins"
export GOCACHE="$cache/go-build" GOFLAGS="-p=2 -mod=mod" GOTOOLCHAIN=local CGO_ENABLED=0

command -v go >/dev/null || { echo "Go is not installed"; exit 77; }
stamp="$release $(go env GOVERSION GOARCH | tr '\n' ' ')"
if [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]; then
    module_folder="$(mktemp -d)"
    trap 'rm -rf "$module_folder"' EXIT
    (
        cd "$module_folder"
        go mod init reference >/dev/null 2>&1
        go get "$module@$release"
        mkdir -p "$out"
        packages=()
        for plugin in main/{bridge,dummy,host-device,ipvlan,loopback,macvlan,ptp,tap,vlan} \
            meta/{bandwidth,firewall,portmap,sbr,tuning,vrf} ipam/{dhcp,host-local,static}; do
            packages+=("$module/plugins/$plugin")
        done
        nice -n 15 go build -trimpath -ldflags "-s -w" -o "$out/" "${packages[@]}"
    ) >"$module_folder/log" 2>&1 || { echo "the reference plugins cannot be built: $(tail -n 1 "$module_folder/log")"; exit 77; }
    echo "$stamp" >"$out/stamp"
fi
echo "$out"
