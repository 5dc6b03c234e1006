#!/usr/bin/env bash
# The figures of docs/performance.md. usage: bench/run.sh [cni] [nodes] [up] [scale] [path] [apiserver] [services] [proxies] [userspace]
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[ "$#" -gt 0 ] || parts=(cni nodes up scale path apiserver services proxies userspace)
for part in "${parts[@]}"; do
    echo "== $part"
    "bench/$part.sh"
done
