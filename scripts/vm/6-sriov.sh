# shellcheck shell=bash
# Virtual functions of an emulated card (igb) in pods, and what was before when they come back.
modprobe igb
modprobe igbvf
card=""
for link in /sys/class/net/*; do
    if [ -e "$link/device/sriov_numvfs" ]; then card="$(basename "$link")"; fi
done
if [ -z "$card" ]; then
    echo "skipped: sriov: QEMU emulates no card with virtual functions (it is older than 8)"
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
