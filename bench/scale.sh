#!/usr/bin/env bash
# 100 nodes and 1,000 pods over vxlan: until all is ready, then a check of 20,000 pairs, then
# the agents' resident memory. usage: bench/scale.sh [NODES] [PODS]
set -euo pipefail
cd "$(dirname "$0")/.."
nodes="${1:-100}" pods="${2:-1000}"
WEFT_LAB_DIR="$(mktemp -d)"
export WEFT_LAB_DIR
trap 'bin/weft lab down --all >/dev/null 2>&1; rm -rf "$WEFT_LAB_DIR"' EXIT

manifest="$WEFT_LAB_DIR/load.yaml"
for i in $(seq 10); do
    cat >>"$manifest" <<YAML
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: load-$i, namespace: default}
spec:
  replicas: $((pods / 10))
  selector: {matchLabels: {app: load-$i}}
  template:
    metadata: {labels: {app: load-$i}}
    spec:
      containers:
      - {name: c, image: example/load, ports: [{containerPort: 8080}]}
YAML
done
start="$(date +%s%N)"
bin/weft lab up --name scale --nodes "$nodes" --backend vxlan -f "$manifest" >/dev/null 2>&1
echo "lab up, $nodes nodes, $pods pods, vxlan: $((($(date +%s%N) - start) / 1000000)) ms"

start="$(date +%s%N)"
bin/weft lab check --name scale -o json >"$WEFT_LAB_DIR/check.json" 2>/dev/null || echo "check found mismatches"
echo "lab check: $((($(date +%s%N) - start) / 1000000)) ms, $(tr -d '\n' <"$WEFT_LAB_DIR/check.json" | grep -oE '"(pairs|matching)": ?[0-9]+' | tr '\n' ' ')"

pgrep -f 'weft agent .*--node-name' | while read -r pid; do
    awk '/VmRSS/ { print $2 }' "/proc/$pid/status"
done | sort -n | awk '{ r[NR] = $1 } END { printf "agent resident memory: median %.1f MiB, largest %.1f MiB, %d agents\n", r[int((NR+1)/2)]/1024, r[NR]/1024, NR }'
