#!/usr/bin/env bash
# TCP pod to pod across nodes, Weft's against the same path set up by hand with ip, in turn.
# usage: [MASQUERADE=1] [BACKENDS="host-gw vxlan"] bench/path.sh [ROUNDS] [SECONDS]
# (ipip, where the kernel has it)
set -euo pipefail
cd "$(dirname "$0")/.."
rounds="${1:-7}" seconds="${2:-4}"

if [ "${INSIDE:-}" != 1 ]; then
    # Everything by hand lives in namespaces of its own; /run/netns is private to them.
    exec unshare -n -m env INSIDE=1 bash "$0" "$@"
fi
ip link set lo up
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
WEFT_LAB_DIR="$(mktemp -d)"
export WEFT_LAB_DIR
cleanup() {
    bin/weft lab down --all >/dev/null 2>&1 || true
    pkill -P $$ iperf3 2>/dev/null || true
    rm -rf "$WEFT_LAB_DIR"
}
trap cleanup EXIT

# With MASQUERADE=1 the hand-made nodes masquerade what leaves the cluster, as any node must.
masquerade() { # namespace
    ip netns exec "$1" nft -f - <<'NFT'
table ip hand {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random
    }
}
NFT
}

by_hand() { # backend
    ip netns add hu && ip -n hu link add br0 type bridge && ip -n hu link set br0 up
    for n in 1 2; do
        ip netns add "hn$n" && ip netns add "hp$n"
        ip -n hu link add "n$n" type veth peer name eth0 netns "hn$n"
        ip -n hu link set "n$n" master br0 up
        ip -n "hn$n" addr add "10.168.0.$((n + 1))/24" dev eth0 && ip -n "hn$n" link set eth0 up
        ip -n "hn$n" link add cbr0 type bridge && ip -n "hn$n" addr add "10.244.$n.1/24" dev cbr0
        ip -n "hn$n" link set cbr0 up
        ip netns exec "hn$n" sysctl -qw net.ipv4.ip_forward=1
        mtu=1500; [ "$1" != vxlan ] || mtu=1450; [ "$1" != ipip ] || mtu=1480
        ip -n "hn$n" link add p0 mtu "$mtu" type veth peer name eth0 mtu "$mtu" netns "hp$n"
        ip -n "hn$n" link set p0 master cbr0 up
        ip -n "hp$n" addr add "10.244.$n.2/24" dev eth0 && ip -n "hp$n" link set eth0 up
        ip -n "hp$n" route add default via "10.244.$n.1"
        [ "${MASQUERADE:-0}" = 0 ] || masquerade "hn$n"
    done
    for n in 1 2; do
        o=$((3 - n))
        if [ "$1" = host-gw ]; then
            ip -n "hn$n" route add "10.244.$o.0/24" via "10.168.0.$((o + 1))"
        elif [ "$1" = ipip ]; then
            ip -n "hn$n" link add ipip0 mtu 1480 type ipip local "10.168.0.$((n + 1))" && ip -n "hn$n" link set ipip0 up
            ip -n "hn$n" route add "10.244.$o.0/24" via "10.168.0.$((o + 1))" dev ipip0 onlink
        else
            ip -n "hn$n" link add vx type vxlan id 1 dstport 8472 local "10.168.0.$((n + 1))" dev eth0 nolearning
            ip -n "hn$n" link set vx address "66:00:00:00:00:0$n" mtu 1450 up
            ip -n "hn$n" addr add "10.244.$n.0/32" dev vx
            ip -n "hn$n" neigh add "10.244.$o.0" lladdr "66:00:00:00:00:0$o" dev vx nud permanent
            bridge -n "hn$n" fdb add "66:00:00:00:00:0$o" dev vx dst "10.168.0.$((o + 1))" self permanent
            ip -n "hn$n" route add "10.244.$o.0/24" via "10.244.$o.0" dev vx onlink
        fi
    done
}

gbits() { grep -oE '"bits_per_second":\s*[0-9.e+]+' | tail -n 1 | awk -F: '{ printf "%.3f\n", $2 / 1e9 }'; }
median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.2f (%.2f-%.2f)", v[int((NR+1)/2)], v[1], v[NR] }'; }

for backend in ${BACKENDS:-host-gw vxlan}; do
    by_hand "$backend"
    ip netns exec hp2 iperf3 -s >/dev/null &
    server_by_hand=$!
    bin/weft lab up --name path --nodes 2 --backend "$backend" -f examples/two-pods.yaml >/dev/null
    read -r client server address < <(bin/weft lab status --name path -o json | python3 -c '
import json, sys
pods = sorted(json.load(sys.stdin)["pods"], key=lambda p: p["node"])
print(pods[0]["name"], pods[-1]["name"], pods[-1]["ips"][0])')
    bin/weft lab exec --name path "$server" -- iperf3 -s >/dev/null 2>&1 &
    until bin/weft lab exec --name path "$client" -- iperf3 -c "$address" -t 1 >/dev/null 2>&1; do :; done
    ours="" theirs="" ratios=""
    weft() { a="$(bin/weft lab exec --name path "$client" -- iperf3 -J -c "$address" -t "$seconds" | gbits)"; }
    hand() { b="$(ip netns exec hp1 iperf3 -J -c 10.244.2.2 -t "$seconds" | gbits)"; }
    # Who comes first gets the processors as the other's end left them: in turn.
    for round in $(seq "$rounds"); do
        if [ $((round % 2)) = 0 ]; then weft; hand; else hand; weft; fi
        ours+="$a"$'\n' theirs+="$b"$'\n'
        ratios+="$(awk "BEGIN { print $a / $b }")"$'\n'
    done
    echo "$backend: weft $(printf '%s' "$ours" | median) Gbit/s, by hand $(printf '%s' "$theirs" | median) Gbit/s, ratio $(printf '%s' "$ratios" | median)"
    bin/weft lab down --name path >/dev/null 2>&1
    kill "$server_by_hand"
    wait 2>/dev/null || true
    for n in hu hn1 hn2 hp1 hp2; do ip netns del "$n"; done
done
