#!/usr/bin/env bash
# Runs in namespaces of its own (network, mounts, processes) for runtimes.rs: one node with a real API server,
# agent, containerd and podman on the agent's network. $1 is a folder for everything, $2 that of the installed
# plugins, $3 a client of CRI, $4 weft.
set -euo pipefail
work="$1" bin="$2" client="$3" weft="$4"
# shellcheck source=crates/cni/tests/common/containerd.sh
. "$(dirname "$0")/../../cni/tests/common/containerd.sh"
say() { echo "$SECONDS s: $*"; }

ip link add eth0 type veth peer name seg0
ip link set seg0 up
ip addr add 10.168.0.2/24 dev eth0
ip link set eth0 up
ip route add default via 10.168.0.1
export KUBECONFIG="$work/api/admin.kubeconfig" HOME="$work"
start_api() {
    "$weft" apiserver --data-dir "$work/api" --listen 127.0.0.1:6443 --cluster-cidr 10.244.0.0/16 >>api.log 2>&1 &
    api=$!
    within 60 kubectl get --raw /readyz >/dev/null
}
start_api
kubectl create -f - <<'NODE' >/dev/null
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
NODE
kubectl patch node node1 --subresource status --type merge \
    -p '{"status": {"addresses": [{"type": "InternalIP", "address": "10.168.0.2"}]}}' >/dev/null
start_containerd
ctr -a "$socket" -n k8s.io image import --snapshotter native image.tar >/dev/null
ctr -a "$socket" image import --snapshotter native image.tar >/dev/null
cat >containers.conf <<CONF
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "weft"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
CONF
export CONTAINERS_CONF="$work/containers.conf"
# crun refuses the machine's cgroups if they are of both versions: podman sees none, in a mount namespace that
# shares /run, where the network namespaces of its containers are.
mount --make-shared /run
unshare --mount --propagation unchanged sh -c 'mount -t tmpfs tmpfs /sys/fs/cgroup && touch ready && exec sleep 3600' &
apart=$!
within 30 test -e ready
pod_man() { nsenter --mount --target "$apart" podman --root "$work/pods/root" --runroot "$work/pods/run" --storage-driver vfs --runtime crun "$@"; }
pod_man system service --time=0 "unix://$work/podman.sock" >podman.log 2>&1 &
"$weft" agent --node-name node1 --kubeconfig "$KUBECONFIG" --cluster-cidr 10.244.0.0/16 --backend host-gw \
    --cri-socket "$socket" --podman-socket "$work/podman.sock" --state-dir "$work/agent" >agent.log 2>&1 &
# shellcheck disable=SC2154 # of the trap itself
trap 'code=$?; [ "$code" -eq 0 ] || tail -n 30 agent.log; kill $(jobs -p) 2>/dev/null; exit $code' EXIT
within 60 test -s /etc/cni/net.d/10-weft.conflist
network_ready() { cri Status | tr -d ' \n' | grep -q '"type":"NetworkReady","status":true'; }
within 60 network_ready
pod_man import -q "$work/image/layer.tar" localhost/web >/dev/null
within 30 test -S "$work/podman.sock"

# NAME and more of podman's options: a container that serves the page.
serve() {
    local name="$1"
    shift
    pod_man run -d --name "$name" --network weft --cgroups=disabled --log-driver none --ulimit nofile=512:512 \
        --ulimit nproc=512:512 --security-opt seccomp=unconfined "$@" localhost/web httpd -f -p 80 -h /www >/dev/null
}
labels() { kubectl get pod "$1" -o 'jsonpath={.status.phase} {.metadata.labels}'; }
has_labels() { labels "$1" | grep -F "$2"; }
has_no_pod() { ! kubectl get pod "$1" 2>&1 || return 1; }
allocated() { find /var/lib/cni/networks/weft -maxdepth 1 -name '10.244.*' -printf '%f\n' | sort; }

say "podman: a published port, and its labels"
serve shop_1 -p 8081:80 --label tier=front --label source=https://example.org
within 30 busybox wget -q -O - http://10.168.0.2:8081/
within 60 has_labels shop-1 'Running {"app.kubernetes.io/instance":"shop-1","app.kubernetes.io/name":"shop","tier":"front"}'

say "ctr: the labels that containerd has"
ctr -a "$socket" run --rm --cni --snapshotter native --label tier=back docker.io/local/web:1 box /bin/sleep 3600 &
box=$!
within 60 has_labels default-box '"tier":"back"'

say "CRI: a sandbox that is no pod of the API has its labels, one that is has none from here"
loose="$(run_web '{"metadata": {"name": "loose", "namespace": "default"}, "labels": {"tier": "middle", "bad": "two words"},
    "port_mappings": [{"container_port": 80, "host_port": 8080}], "linux": {}}')"
pod="$(run_sandbox '{"metadata": {"name": "declared", "namespace": "default", "uid": "u-1"}, "linux": {}}')"
within 60 has_labels loose '"tier":"middle"'
within 30 busybox wget -q -O - http://10.168.0.2:8080/
has_no_pod declared
for id in "$loose" "$pod"; do
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}" >/dev/null
    cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}" >/dev/null
done
within 60 has_no_pod loose
ctr -a "$socket" task kill -s KILL box
wait "$box" || true
within 60 has_no_pod default-box

say "the API server is away"
kill -9 "$api"
serve late
serve never
pod_man rm -f -t 0 never shop_1 >/dev/null
start_api
within 90 has_labels late 'Running {"app.kubernetes.io/instance":"late"'
within 30 has_no_pod shop-1
has_no_pod never
pod_man rm -f -t 0 late >/dev/null
within 60 has_no_pod late
test -z "$(allocated)"

say "containerd loses sandboxes: one whose namespace is gone too, one whose namespace stays, and keeps one"
declared() { run_sandbox "{\"metadata\": {\"name\": \"$1\", \"namespace\": \"default\", \"uid\": \"$1\"}, \"linux\": {}}"; }
gone="$(declared gone)" stays="$(declared stays)" kept="$(declared kept)"
address_of() { cri PodSandboxStatus "{\"pod_sandbox_id\": \"$1\"}" | grep -o '10\.244\.[0-9.]*'; }
kept_address="$(address_of "$kept")"
for id in "$gone" "$stays"; do
    ctr -a "$socket" -n k8s.io task kill -s KILL "$id"
    # containerd itself takes the ended task away.
    within 30 ctr -a "$socket" -n k8s.io container rm "$id"
done
netns="$(grep -o '/run/netns/cni-[0-9a-f-]*' "/var/lib/cni/results/weft-$gone-eth0" | head -n 1)"
ip netns del "$(basename "$netns")"
kill -9 "$daemon"
within 90 grep 'ask the container runtime' agent/containers.json
test "$(allocated | wc -l)" -eq 3
start_containerd
only_kept() { test "$(allocated)" = "$kept_address"; }
within 180 only_kept
ping -n -c 1 -W 5 "$kept_address" >/dev/null
test "$(ip -o link | grep -c ' wf')" -eq 1
say "freed"
cri StopPodSandbox "{\"pod_sandbox_id\": \"$kept\"}" >/dev/null
cri RemovePodSandbox "{\"pod_sandbox_id\": \"$kept\"}" >/dev/null

echo "== left"
allocated
ip -o link | grep ' wf' || true
find "$work/agent/attachments" -type f
kubectl get pods --all-namespaces -o name
nft list ruleset | grep -e 8080 -e 8081 || true
