# shellcheck shell=bash
# F37: the kernel has no room to track another connection. The limit is the machine's, each node fills its own table.
for module in br_netfilter nf_tables nft_masq nft_chain_nat nft_ct nft_fib_ipv4 nft_fib_ipv6 nft_numgen nft_reject_ipv4 nft_reject_ipv6 nf_conntrack; do
    modprobe "$module" || true
done
remember
limit=/proc/sys/net/netfilter/nf_conntrack_max
old="$(cat $limit)"
weft lab up --name full --nodes 1 -f - <<'WEB'
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: c, image: example.org/c:1, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: c, image: example.org/c:1}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.9.9, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
WEB
weft lab status --name full --wait
weft lab check --name full
agent="$(pgrep -f -- 'agent --node-name node1')"
services="$(tr '\0' '\n' </proc/"$agent"/cmdline | grep -A1 -x -- --state-dir | tail -n 1)/services.json"

# A connection that is there, and goes on saying something.
(while echo weft-whoami; do sleep 0.2; done) | weft lab exec --name full client -- socat -t 5 - TCP:10.96.9.9:80 >lines &
going=$!
fillers=()
wait_for() { # what condition...
    local what="$1"
    shift
    for _ in $(seq 300); do if "$@"; then return; fi; sleep 0.2; done
    echo "never: $what"
    return 1
}
lines() { [ "$(wc -l <lines)" -gt "$1" ]; }
wait_for "the connection is there" lines 2

# Forty more that are established, and room for no other.
for _ in $(seq 40); do
    weft lab exec --name full client -- socat -t 100 -u TCP:10.96.9.9:80 - >/dev/null & fillers+=($!)
done
tracked() { [ "$(nsenter -n -t "$agent" cat /proc/sys/net/netfilter/nf_conntrack_count)" -ge 41 ]; }
wait_for "forty connections" tracked
echo 20 >$limit
said="$(wc -l <lines)"
new() { weft lab exec --name full client -- timeout 3 sh -c 'echo weft-whoami | socat -t 2 -T 2 - TCP:10.96.9.9:80' | grep -q web; }
if new; then echo "a new connection was tracked in a full table"; exit 1; fi
wait_for "the old connection goes on" lines "$((said + 5))"
echo "ok a connection through a Service goes on while the table is full, a new one is dropped"

told() { grep -q 'raise net.netfilter.nf_conntrack_max' "$services"; }
wait_for "the agent tells it" told
grep -q '"programmed": true' "$services"
echo "ok the agent tells that connections are dropped"

echo "$old" >$limit
wait_for "new connections" new
untold() { ! told; }
wait_for "the agent tells it no more" untold
pkill -x socat
wait "$going" "${fillers[@]}" || true
weft lab check --name full
echo "ok with room the Service is whole again"
weft lab down --name full
nothing_left
