#!/usr/bin/env bash
# 100 nodes race for blocks of a pool with room, and of one with hardly a block more than nodes: through one
# weft apiserver, and through two over one etcd. Fails when a block is lost or has two nodes.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --locked -q -p weft-cli --test race -- --nocapture --test-threads 1 | grep -oE '(weft apiserver|two weft|skipped).*'
