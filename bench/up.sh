#!/usr/bin/env bash
# `weft lab up`, 3 nodes and the example shop, until `check` could start. usage: bench/up.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/.."
WEFT_LAB_DIR="$(mktemp -d)"
export WEFT_LAB_DIR
trap 'bin/weft lab down --all >/dev/null 2>&1; rm -rf "$WEFT_LAB_DIR"' EXIT

for backend in host-gw vxlan; do
    times=""
    for _ in $(seq "${1:-5}"); do
        start="$(date +%s%N)"
        bin/weft lab up --name bench --nodes 3 --backend "$backend" -f examples/shop >/dev/null 2>&1
        times+="$((($(date +%s%N) - start) / 1000000))"$'\n'
        pods="$(bin/weft lab status --name bench -o json | grep -c '"phase"' || true)"
        bin/weft lab down --name bench >/dev/null 2>&1
    done
    printf '%s' "$times" | sort -n | awk -v b="$backend" -v p="$pods" \
        '{ t[NR] = $1 } END { printf "lab up, 3 nodes, %s pods, %s: median %d ms (%d-%d)\n", p, b, t[int((NR+1)/2)], t[1], t[NR] }'
done
