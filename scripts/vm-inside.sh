#!/usr/bin/env bash
# Runs inside the virtual machine of vm-test.sh; $1 is the folder shared with the outside.
set -euo pipefail
exec >"$1/log" 2>&1
# The shared folder is a network file system; what runs is copied off it.
local_copy=/run/weft-vm
mkdir -p "$local_copy"
cp -r "$1/weft" "$1/weft-cni" "$1/examples" "$local_copy/"
PATH="$local_copy:/usr/sbin:/sbin:$PATH"
export WEFT_LAB_DIR=/run/weft-lab
mkdir -p "$WEFT_LAB_DIR"
cd "$local_copy"
uname -r
ip link set lo up || busybox ip link set lo up

# Without its module this kernel has no vxlan: one clear line, exit 3, nothing left.
loader="$(cat /proc/sys/kernel/modprobe)"
if ! grep -q '^vxlan ' /proc/modules; then
    echo /bin/false >/proc/sys/kernel/modprobe
    status=0
    weft lab up --name novxlan --nodes 2 --backend vxlan -f examples/two-pods.yaml \
        2>&1 >novxlan.out | tee novxlan.err || status=${PIPESTATUS[0]}
    [ "$status" -eq 3 ]
    grep '^error: ' novxlan.err | grep vxlan | grep -q host-gw
    [ "$(grep -c '^error: ' novxlan.err)" -eq 1 ]
    [ ! -s novxlan.out ]
    if weft lab status --name novxlan; then exit 1; fi
    [ -z "$(ls -A "$WEFT_LAB_DIR")" ]
    echo "ok a kernel without vxlan is refused"
    echo "$loader" >/proc/sys/kernel/modprobe
fi

for module in veth bridge vxlan nf_tables nft_masq nft_chain_nat nft_ct; do modprobe "$module" || true; done
for backend in host-gw vxlan; do
    weft lab up --name "$backend" --nodes 2 --backend "$backend" -f examples/two-pods.yaml
    weft lab check --name "$backend"
    weft lab down --name "$backend"
    [ -z "$(ls -A "$WEFT_LAB_DIR")" ]
    echo "ok $backend"
done
echo "vm: done"
