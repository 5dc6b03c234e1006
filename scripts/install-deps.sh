#!/usr/bin/env bash
# Installs the Debian packages that a task needs and that are missing, and says which.
# usage: install-deps.sh run|test|bench|vm
set -euo pipefail

case "${1:-}" in
run)   commands=(cc) ;;
test)  commands=(cc ip nft ping strace kubectl iperf3 cnitest unshare setpriv etcd etcdctl ovs-vswitchd \
    iptables dnsmasq kea-dhcp4 kea-dhcp6 podman conmon crun containerd runc busybox ethtool socat tshark wrk arping ndisc6 ipvsadm ipset bird \
    bgpd gobgpd) ;;
bench) commands=(cc ip nft iperf3 cnitest python3 haproxy wrk nginx) ;;
vm)    commands=(cc strace qemu-system-x86_64 busybox depmod cpio ip ping ovs-vswitchd ipvsadm ipset) ;;
*) echo "usage: $0 run|test|bench|vm" >&2; exit 2 ;;
esac

package_of() {
    case "$1" in
    cc) echo gcc libc6-dev ;;
    ip) echo iproute2 ;;
    nft) echo nftables ;;
    ping) echo iputils-ping ;;
    arping) echo iputils-arping ;;
    kubectl) echo kubernetes-client ;;
    iperf3) echo iperf3 ;;
    cnitest) echo containernetworking-plugins ;;
    unshare | setpriv) echo util-linux ;;
    qemu-system-x86_64) echo qemu-system-x86 ;;
    busybox) echo busybox-static ;;
    depmod) echo kmod ;;
    etcd) echo etcd-server ;;
    etcdctl) echo etcd-client ;;
    ovs-vswitchd) echo openvswitch-switch ;;
    dnsmasq) echo dnsmasq-base ;;
    bird) echo bird2 ;;
    bgpd) echo frr ;;
    kea-dhcp4 | kea-dhcp6) echo "$1-server" ;;
    *) echo "$1" ;;
    esac
}

present() {
    case "$1" in
    cnitest) [ -x /usr/lib/cni/bridge ] ;;
    bgpd) [ -x /usr/lib/frr/bgpd ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

missing=""
for command in "${commands[@]}"; do
    present "$command" || missing+=" $(package_of "$command")"
done

if ! command -v cargo >/dev/null; then
    echo "install-deps: Rust is missing: install it with rustup (https://rustup.rs), then run this again" >&2
    exit 3
fi
[ -z "$missing" ] && exit 0

echo "install-deps: installing$missing"
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-deps: not root and no sudo: run as root: apt-get install$missing" >&2
        exit 3
    fi
    sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
# Tests start routing daemons themselves; on the machine none is to run.
for package in $missing; do
    case "$package" in
    bird2) unit=bird ;;
    frr | gobgpd) unit=$package ;;
    *) continue ;;
    esac
    if command -v systemctl >/dev/null; then ${sudo:-} systemctl mask "$unit" >/dev/null 2>&1 || true; fi
done
${sudo:-} apt-get update -qq
# shellcheck disable=SC2086 # one word a package
${sudo:-} apt-get install -y -qq --no-install-recommends $missing >/dev/null
