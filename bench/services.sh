#!/usr/bin/env bash
# One node's Services in the kernel: all from nothing, one endpoint's change, and all adopted after a restart, in a
# namespace of its own; then what a connection to the last of many costs beside one by a single rule of DNAT.
# usage: bench/services.sh [SERVICES]...
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$WEFT_CACHE/target}"
counts=("$@")
[ "$#" -gt 0 ] || counts=(10000 30000)
cargo build -q --release --locked -p weft-service --example services --example connections
for count in "${counts[@]}"; do
    for _ in 1 2 3; do unshare -n "$CARGO_TARGET_DIR/release/examples/services" "$count" 3 monitored; done
done
"$CARGO_TARGET_DIR/release/examples/connections" "${counts[-1]}"
