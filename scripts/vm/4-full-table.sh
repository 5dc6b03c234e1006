# shellcheck shell=bash
# F38: the neighbour table, one for the whole machine, is full.
limits=/proc/sys/net/ipv4/neigh/default
read -r old1 old2 old3 < <(cat "$limits"/gc_thresh{1,2,3} | xargs)
set_limits() { echo "$1" >"$limits/gc_thresh1"; echo "$2" >"$limits/gc_thresh2"; echo "$3" >"$limits/gc_thresh3"; }
in_node1() { nsenter -n -t "$agent1" "$@"; }

remember
weft lab up --name full --nodes 2 --backend vxlan -f examples/two-pods.yaml
weft lab apply --name full -f - <<'POD'
apiVersion: v1
kind: Pod
metadata: {name: beside}
spec:
  nodeSelector: {kubernetes.io/hostname: node1}
  containers: [{name: c, image: example.org/c:1}]
POD
weft lab status --name full --wait
weft lab check --name full
agent1="$(pgrep -f -- 'agent --node-name node1')"
far="$(weft lab exec --name full pong -- ip -4 -o addr show eth0 | awk '{sub("/.*", "", $4); print $4}')"
weft lab exec --name full ping -- ping -i 0.2 -c 150 -q "$far" >flow &
flow=$!
kubeconfig="$(weft lab kubeconfig --name full)"

# Entries that are in use do not age: with them the table is full and stays so.
ip link add fill0 type bridge
ip link set fill0 up
echo 3600000 >/proc/sys/net/ipv4/neigh/fill0/base_reachable_time_ms
set_limits 1 4 64
fill() {
    seq -f "neigh replace 198.18.0.%g lladdr 02:00:00:00:00:01 nud reachable dev fill0" 1 100 |
        ip -force -batch - 2>fill.err || true
    grep -m 1 'No buffer space available' fill.err
}
fill
full_table fill0
echo "ok permanent entries fit a full table, others are tried again and fit once there is room"

# What the agent writes is permanent: it is back although the table is full. The commands of the
# lab talk over the loopback, which needs an entry too, so none is used until there is room.
fill
state() { in_node1 bridge fdb show dev weft-vxlan; in_node1 ip neigh show dev weft-vxlan nud permanent; }
state | sort >state.before
fdb="$(awk '/dst/ {print $1; exit}' state.before)"
peer="$(awk '/PERMANENT/ {print $1; exit}' state.before)"
in_node1 ip neigh del "$peer" dev weft-vxlan
in_node1 bridge fdb del "$fdb" dev weft-vxlan
for _ in $(seq 50); do
    state | sort >state.after
    if cmp -s state.before state.after; then break; fi
    sleep 0.1
done
diff state.before state.after
fill
echo "ok an agent heals its entries in a full table"

# What is learned finds no room: pods do not reach themselves over their loopback, or the lab's
# own API server is not reached over its. Either way the check says what to do.
status=0
timeout 120 weft lab check --name full >full.out 2>full.err || status=$?
cat full.err
[ "$status" -eq 1 ] || [ "$status" -eq 3 ]
grep '^note: ' full.err | grep -q 'its 64 entries; sysctl -w net.ipv4.neigh.default.gc_thresh3='
echo "ok a check that lacks room says so (exit $status)"

# An agent of this machine makes room when it starts, and the same lab is whole again.
weft agent --node-name none --kubeconfig "$kubeconfig" --cluster-cidr 10.244.0.0/16 \
    --state-dir "$PWD/agent" --cni-conf-dir "$PWD/net.d" --cni-data-dir "$PWD/networks" &
agent=$!
for _ in $(seq 100); do
    if [ "$(cat "$limits/gc_thresh3")" -eq 16384 ]; then break; fi
    sleep 0.1
done
[ "$(cat "$limits"/gc_thresh{1,2,3} | xargs)" = "4096 8192 16384" ]
kill "$agent"
wait "$agent" || true
echo "ok an agent raises the machine's limits"
wait "$flow"
cat flow
grep -q ' 0% packet loss' flow
weft lab check --name full
echo "ok a flow to the other node lost nothing meanwhile, and the check passes"

weft lab down --name full
ip link del fill0
set_limits "$old1" "$old2" "$old3"
nothing_left
