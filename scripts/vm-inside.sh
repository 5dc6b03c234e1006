#!/usr/bin/env bash
# Runs inside the virtual machine of vm-test.sh; $1 is the folder shared with the outside.
set -euo pipefail
exec >"$1/log" 2>&1
PATH="$1:/usr/sbin:/sbin:$PATH"
export WEFT_LAB_DIR=/run/weft-lab
mkdir -p "$WEFT_LAB_DIR"
uname -r

# Without its module this kernel has no vxlan: one clear line, exit 3, nothing left.
loader="$(cat /proc/sys/kernel/modprobe)"
if ! grep -q '^vxlan ' /proc/modules; then
    echo /bin/false >/proc/sys/kernel/modprobe
    status=0
    weft lab up --name novxlan --nodes 2 --backend vxlan -f "$1/examples/two-pods.yaml" >"$1/novxlan" 2>&1 || status=$?
    cat "$1/novxlan"
    [ "$status" -eq 3 ]
    grep -q 'vxlan' "$1/novxlan"
    grep -q 'host-gw' "$1/novxlan"
    if weft lab status --name novxlan; then exit 1; fi
    echo "ok a kernel without vxlan is refused"
    echo "$loader" >/proc/sys/kernel/modprobe
fi

for module in veth bridge vxlan nf_tables nft_masq nft_chain_nat nft_ct; do modprobe "$module" || true; done
for backend in host-gw vxlan; do
    weft lab up --name "$backend" --nodes 2 --backend "$backend" -f "$1/examples/two-pods.yaml"
    weft lab check --name "$backend"
    weft lab down --name "$backend"
    echo "ok $backend"
done
echo "vm: done"
