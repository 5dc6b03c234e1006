#!/usr/bin/env bash
# The CNI plugins as whole processes: the reference's release 1.9.1, Debian's and ours in one run, call by
# call in turn, on an empty node and beside 500 pods. All namespaces are of its own.
# usage: bench/cni.sh [--rounds N] [--pods N] [--part life|storm|account|size]... [--json FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
scripts/install-deps.sh bench
plugin="$(scripts/build-cni.sh)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/cnirun" bench/cnirun.c
mkdir "$work/weft"
strip -o "$work/weft/weft-cni" "$plugin"
for plugin in bridge host-local portmap firewall; do
    ln -s weft-cni "$work/weft/$plugin"
done
contestants=("weft=$work/weft")
if reference="$(scripts/reference-plugins.sh)"; then
    contestants+=("reference=$reference")
else
    echo "without the reference 1.9.1: $reference" >&2
fi
[ ! -x /usr/lib/cni/bridge ] || contestants+=("debian=/usr/lib/cni")
unshare --mount --net --propagation private python3 bench/cni.py --work "$work" "$@" "${contestants[@]}"
