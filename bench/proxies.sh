#!/usr/bin/env bash
# The agent's Services beside the real kube-proxy's, in one run (bench/proxies.py says what is measured).
# usage: bench/proxies.sh [ARGUMENT OF proxies.py]...
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$WEFT_CACHE/target}"
cargo build -q --release --locked -p weft-cli
if WEFT_KUBERNETES="$(scripts/kubernetes.sh)"; then
    export WEFT_KUBERNETES
    exec bench/proxies.py "$@"
fi
echo "without kube-proxy: $WEFT_KUBERNETES"
exec bench/proxies.py --proxies weft-nftables,weft-iptables,weft-userspace "$@"
