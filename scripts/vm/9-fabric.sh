# shellcheck shell=bash
# Node to node by what not every kernel has: IP in IP tunnels in every family and topology, what paths
# take through a narrow hop, and an underlay that loses, reorders, doubles and corrupts packets (F36).
for module in veth bridge vxlan ipip ip6_tunnel nf_tables nft_masq nft_chain_nat nft_ct sch_netem; do
    modprobe "$module" || true
done
families=("10.244.0.0/16" "fd00:244::/56" "10.244.0.0/16 fd00:244::/56")
# cidrs LIST: the arguments for the pod CIDRs of a family or two.
cidrs() {
    local cidr
    for cidr in $1; do echo "--pod-cidr $cidr"; done
}

for topology in flat racks=2; do
    for family in "${families[@]}"; do
        for backend in ipip ipip-cross-subnet; do
            # shellcheck disable=SC2046 # one word an argument
            up_check_down cell --backend "$backend" --topology "$topology" $(cidrs "$family")
            echo "ok $backend, $topology, $family"
        done
    done
done

# A hop of 1,400 bytes between nodes of 9,000: nothing is swallowed, and pods learn what the path takes.
for backend in vxlan ipip; do
    remember
    # shellcheck disable=SC2046 # one word an argument
    weft lab up --name narrow --nodes 2 --topology racks=2 --underlay-mtu 9000 --hop-mtu 1400 \
        --backend "$backend" $(cidrs "${families[2]}") -f examples/two-pods.yaml
    weft lab check --name narrow --sizes | tee narrow.out
    if grep -q 'did not arrive' narrow.out; then exit 1; fi
    [ "$(grep -cE ': (1350|1380|1360) of 89[0-9]0 bytes whole' narrow.out)" -eq 4 ]
    weft lab down --name narrow
    nothing_left
    echo "ok $backend finds the path through a narrow hop"
done

# F36: what arrives is what was sent, a killed agent and a new pod find their way, and all is as it
# should be when the underlay is whole again.
remember
weft lab up --name lossy --nodes 2 --backend vxlan -f examples/two-pods.yaml
far="$(weft lab exec --name lossy pong -- ip -4 -o addr show eth0 | awk '{sub("/.*", "", $4); print $4}')"
on_nodes() {
    local node
    for node in node1 node2; do weft lab exec --name lossy "node/$node" -- sh -c "$1"; done
}
head -c 3000000 /dev/urandom >sent
for netem in "loss 1%" "loss 10%" "delay 5ms 2ms reorder 10%" "duplicate 10%" "corrupt 5%" \
    "delay 2ms loss 3% duplicate 3% corrupt 3%"; do
    on_nodes "tc qdisc replace dev eth0 root netem $netem"
    weft lab exec --name lossy pong -- sh -c 'busybox nc -l -p 9000 | sha256sum' >arrived &
    receiver=$!
    for _ in $(seq 50); do
        if weft lab exec --name lossy pong -- sh -c 'ss -ltn | grep -q :9000'; then break; fi
        sleep 0.1
    done
    weft lab exec --name lossy ping -- bash -c "cat >/dev/tcp/$far/9000" <sent
    wait "$receiver"
    [ "$(cut -d' ' -f1 arrived)" = "$(sha256sum <sent | cut -d' ' -f1)" ]
    again="$(weft lab exec --name lossy ping -- nstat -asz TcpRetransSegs | awk '/TcpRetransSegs/ {print $2}')"
    echo "ok 3 MB arrived whole with $netem on both nodes ($again segments sent again so far)"
done
kill -KILL "$(pgrep -f -- 'agent --node-name node1')"
weft lab apply --name lossy -f - <<'POD'
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  nodeSelector: {kubernetes.io/hostname: node1}
  containers: [{name: c, image: example.org/c:1}]
POD
weft lab status --name lossy --wait --timeout 120s
echo "ok a killed agent and a new pod find their way on a bad underlay"
on_nodes "tc qdisc del dev eth0 root"
weft lab check --name lossy
weft lab down --name lossy
nothing_left
echo "ok all is as it should be when the underlay is whole again"
