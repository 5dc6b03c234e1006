#!/usr/bin/env bash
# Weft's API server beside kube-apiserver and etcd, in one run on one disk: start, memory, durable creates,
# watch delay; then a large cluster held by Weft. The real one is left out where it cannot be built here.
# usage: bench/apiserver.sh [start] [memory] [creates] [watch] [scale]
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${WEFT_CACHE:-$HOME/.cache/weft}/target}"
parts=("$@")
[ "$#" -gt 0 ] || parts=(start memory creates watch scale)
if WEFT_KUBERNETES="$(scripts/kubernetes.sh)"; then
    export WEFT_KUBERNETES
else
    echo "without Kubernetes: $WEFT_KUBERNETES"
    unset WEFT_KUBERNETES
fi
cargo build --release --locked -q -p weft-judge --bin apiserver-bench
"$CARGO_TARGET_DIR/release/apiserver-bench" "${WEFT:-bin/weft}" "${parts[@]}"
