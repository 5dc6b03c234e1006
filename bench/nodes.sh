#!/usr/bin/env bash
# One node's own work for a large cluster: routes, forwarding entries and neighbours of all peers
# from nothing, one peer's change, and all adopted after a restart. In a namespace of its own.
# usage: bench/nodes.sh [NODES]
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$WEFT_CACHE/target}"
cargo build -q --release --locked -p weft-fabric --example scale
for backend in vxlan host-gw udp; do
    for _ in 1 2 3; do unshare -n "$CARGO_TARGET_DIR/release/examples/scale" "${1:-5000}" "$backend"; done
done
