# shellcheck shell=bash
# Without its module this kernel has no vxlan: one clear line that names what works.
loader="$(cat /proc/sys/kernel/modprobe)"
if ! grep -q '^vxlan ' /proc/modules; then
    echo /bin/false >/proc/sys/kernel/modprobe
    refused vxlan weft lab up --name novxlan --nodes 2 --backend vxlan -f examples/two-pods.yaml
    grep '^error: ' refused.err | grep -q host-gw
    if weft lab status --name novxlan; then exit 1; fi
    echo "$loader" >/proc/sys/kernel/modprobe
    echo "ok a kernel without vxlan is refused"
fi
