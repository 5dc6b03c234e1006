#!/usr/bin/env bash
# A CNI ADD and DEL as a whole process, against Debian's containernetworking-plugins in the same
# run, on an empty node and beside 200 pods. usage: bench/cni.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds="${1:-50}"
for pods in 0 200; do
    cargo bench --quiet --locked -p weft-cni --bench cni_add -- --rounds "$rounds" --pods "$pods"
done
