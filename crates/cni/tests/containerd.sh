#!/usr/bin/env bash
# Runs in namespaces of its own (network, mounts, processes) for containerd.rs: a real containerd starts a
# container, by `ctr run --cni` or, with a published port, through CRI. $1 is a folder for everything, $2 that
# of the installed plugins, $3 a client of CRI or nothing for ctr.
set -euo pipefail
work="$1" bin="$2" client="${3-}"
# shellcheck source=crates/cni/tests/common/containerd.sh
. "$(dirname "$0")/common/containerd.sh"
cat >/etc/cni/net.d/10-containers.conflist <<'CONF'
{"cniVersion": "1.0.0", "name": "containers", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}},
  {"type": "portmap", "capabilities": {"portMappings": true}},
  {"type": "bandwidth", "capabilities": {"bandwidth": true}},
  {"type": "firewall"}]}
CONF
# Where published ports are reached at.
ip link add outside type bridge
ip addr add 10.50.0.1/24 dev outside
ip link set outside up
start_containerd
trap 'kill $daemon 2>/dev/null; wait $daemon 2>/dev/null || true' EXIT
networks=/var/lib/cni/networks/containers

by_ctr() {
    ctr -a "$socket" image import --snapshotter native image.tar
    ctr -a "$socket" run --rm --cni --snapshotter native docker.io/local/web:1 web /bin/httpd -f -p 80 -h /www &
    local run=$! address
    until address="$(find "$networks" -maxdepth 1 -name '10.77.*' -printf '%f\n' 2>/dev/null | grep .)" &&
        exec 3<>"/dev/tcp/$address/80"; do
        kill -0 "$run" || { echo "the container ended"; exit 1; }
        sleep 0.1
    done 2>/dev/null
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    cat <&3
    echo "rules while it runs: $(iptables -t nat -S | grep -c 10.77)"
    ctr -a "$socket" task kill -s KILL web
    wait "$run" || true
}

by_cri() {
    ctr -a "$socket" -n k8s.io image import --snapshotter native image.tar
    local id
    id="$(run_web '{"metadata": {"name": "web", "namespace": "shop", "uid": "u-1"}, "labels": {"app": "web"},
        "annotations": {"kubernetes.io/ingress-bandwidth": "10M"},
        "port_mappings": [{"container_port": 80, "host_port": 8080}, {"protocol": "UDP", "container_port": 53, "host_port": 5300}], "linux": {}}')"
    cri PodSandboxStatus "{\"pod_sandbox_id\": \"$id\"}" | grep '"ip"'
    within 30 busybox wget -q -O - http://10.50.0.1:8080/
    tc qdisc show | grep -o 'tbf.*rate 10Mbit'
    echo "rules while it runs: $(iptables -t nat -S | grep -c 10.77)"
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    # kubelet repeats what it does not know to be done.
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
}

if [ -n "$client" ]; then by_cri; else by_ctr; fi
echo "== left"
ip -o link | grep -o 'wf[0-9a-f]*' || true
ip netns
find "$networks" -maxdepth 1 -name '10.77.*' -printf '%f\n'
find /var/lib/cni/results -type f
# The chains that all containers share stay, as the reference's do; none is of a container.
iptables-save | grep -e 10.77 -e CNI-DN- -e 8080 || true
