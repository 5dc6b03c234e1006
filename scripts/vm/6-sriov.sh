# shellcheck shell=bash
# Virtual functions of an emulated card (igb) in pods, and what was before when they come back.
for module in igb igbvf; do modprobe "$module" || true; done
card=""
for link in /sys/class/net/*; do
    if [ -e "$link/device/sriov_numvfs" ]; then card="$(basename "$link")"; fi
done
if [ -z "$card" ]; then
    echo "skipped: sriov (this QEMU emulates no card with virtual functions: from 8 on it has igb)"
else
    ip link set "$card" up
    echo 2 >"/sys/class/net/$card/device/sriov_numvfs"
    # A function that comes up for the first time tells the card its address.
    for link in "/sys/class/net/$card/device"/virtfn*/net/*; do
        ip link set "$(basename "$link")" up
        ip link set "$(basename "$link")" down
    done
    WEFT_CNI="$PWD/weft-cni" tests/link_kinds --ignored --test-threads 1 sriov
    echo 0 >"/sys/class/net/$card/device/sriov_numvfs"
    echo "ok sriov plugin"
fi
