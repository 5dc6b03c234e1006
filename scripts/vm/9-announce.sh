# shellcheck shell=bash
# Addresses of load balancers on links that not every kernel has: a VLAN of the segment, and bonds of two ports.
for module in veth bridge 8021q bonding nf_tables nft_masq nft_chain_nat nft_ct nft_fib_ipv4 nft_fib_ipv6 \
    nft_reject_ipv4 nft_reject_ipv6 nft_numgen br_netfilter; do
    modprobe "$module" || true
done
cat >balanced.yaml <<'BALANCED'
apiVersion: weft.dev/v1
kind: LoadBalancerPool
metadata: {name: segment}
spec:
  addresses: [10.168.0.200/32, "fd10:168::200/128"]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
BALANCED
nodes="node1 node2 node3"
on() { weft lab exec --name announced "$1" -- sh -c "$2"; }
status() { cat "$WEFT_LAB_DIR/announced/node/$1/agent/announce.json"; }
# The one hardware address that answers for the address $1 on the link $2, if it is one.
answers() {
    local heard
    case "$1" in
    *:*) heard="$(on underlay "for i in 1 2 3; do ndisc6 -m -r 1 -w 500 $1 $2; done" || true)" ;;
    *) heard="$(on underlay "arping -b -c 3 -w 3 -I $2 $1" || true)" ;;
    esac
    grep -oiE '([0-9a-f]{2}:){5}[0-9a-f]{2}' <<<"$heard" | tr '[:upper:]' '[:lower:]' | sort -u
}
# The node that says that it has the address $1, if one does.
owner() {
    local node said
    for node in $nodes; do
        said="$(status "$node" | tr -d ' \n' | grep -oE "\"$1\":\{\"owner\":\"[^\"]*\"" | sed 's/.*:"//; s/"//')"
        if [ "$said" = "$node" ]; then echo "$node"; fi
    done
}
# settled LINK NODES'-LINK [NOT-THIS]: one node has each address, and that one answers on the segment.
settled() {
    local address one mac
    for address in 10.168.0.200 fd10:168::200; do
        for _ in $(seq 60); do
            one="$(owner "$address")"
            if [ -n "$one" ] && [ "$one" != "${3:-}" ] && [ "$(wc -w <<<"$one")" -eq 1 ]; then
                mac="$(on "node/$one" "cat /sys/class/net/$2/address")"
                if [ "$(answers "$address" "$1")" = "$mac" ]; then continue 2; fi
            fi
            sleep 0.5
        done
        echo "$address: $one, $(answers "$address" "$1")"
        for one in $nodes; do status "$one"; tail -n 5 "$WEFT_LAB_DIR/announced/log/agent-$one.log" || true; done
        return 1
    done
}
# moved FROM TO: the link TO has the addresses of FROM, in the namespace it is run in.
# shellcheck disable=SC2016 # the shell inside expands it
moved='moved() {
    addresses="$(ip -o addr show dev "$1" scope global | awk "{print \$4}")"
    route="$(ip -4 route show default | head -n 1 | sed "s/ dev .*//")"
    for address in $addresses; do ip addr del "$address" dev "$1"; done
    ip link set "$2" up
    for address in $addresses; do
        case "$address" in *:*) ip addr add "$address" dev "$2" nodad ;; *) ip addr add "$address" dev "$2" ;; esac
    done
    [ -z "$route" ] || ip route replace $route dev "$2"
    ip neigh flush dev "$1" nud permanent
}'
up() {
    weft lab up --name announced --nodes 3 --backend host-gw --pod-cidr 10.244.0.0/16 --pod-cidr fd00:244::/48 \
        -f balanced.yaml
    settled segment eth0
}

remember
up
for node in $nodes; do
    on "node/$node" "$moved; ip link add link eth0 name eth0.5 type vlan id 5; moved eth0 eth0.5"
done
on underlay "$moved; ip link add link segment name segment.5 type vlan id 5; moved segment segment.5"
settled segment.5 eth0.5
status node1 | grep -F '"link": "eth0.5"'
one="$(owner 10.168.0.200)"
on underlay "ip link set $one down"
settled segment.5 eth0.5 "$one"
status "$one" | grep -F 'eth0.5 has no carrier'
weft lab down --name announced
nothing_left
echo "ok a VLAN"

up
for node in $nodes; do
    pinned="$WEFT_LAB_DIR/announced/netns/node-$node"
    on underlay "ip link add $node-b type veth peer name eth1 netns $pinned; ip link set $node-b up master segment"
    on "node/$node" "$moved; ip link add bond0 type bond mode active-backup miimon 100; moved eth0 bond0
        ip link set eth0 down; ip link set eth0 master bond0; ip link set eth1 down; ip link set eth1 master bond0"
done
settled segment bond0
status node1 | grep -F '"link": "bond0"'
one="$(owner 10.168.0.200)"
# The other port goes on with the same hardware address: nothing moves.
on underlay "ip link set $one down"
settled segment bond0
[ "$(owner 10.168.0.200)" = "$one" ]
on underlay "ip link set $one-b down"
settled segment bond0 "$one"
status "$one" | grep -F 'bond0 has no carrier'
weft lab down --name announced
nothing_left
echo "ok a bond"
