#!/usr/bin/env bash
# Runs in namespaces of its own (network, mounts, processes) for containerd.rs: a real containerd starts a
# container with `ctr run --cni`. $1 is a folder for everything, $2 the executable of the plugins.
set -euo pipefail
work="$1" plugin="$2"
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
cd "$work"
# ctr has its folders built in: they are shadowed, so that the machine's own stay as they are.
for place in etc opt var run; do
    mkdir -p "shadow/$place/upper" "shadow/$place/work"
done
for place in etc opt var; do
    mount -t overlay -o "lowerdir=/$place,upperdir=$work/shadow/$place/upper,workdir=$work/shadow/$place/work" overlay "/$place"
done
mkdir -p /etc/cni/net.d /opt/cni/bin
rm -f /etc/cni/net.d/*
cp "$plugin" /opt/cni/bin/weft-cni
for name in bridge host-local portmap firewall; do ln -sf weft-cni "/opt/cni/bin/$name"; done
cat >/etc/cni/net.d/10-containers.conflist <<'END'
{"cniVersion": "1.0.0", "name": "containers", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}},
  {"type": "portmap", "capabilities": {"portMappings": true}},
  {"type": "firewall"}]}
END

# An image of busybox alone, in the form that `docker save` has.
mkdir -p image/root/bin image/root/www
cp /bin/busybox image/root/bin/
ln -s busybox image/root/bin/httpd
echo "hello from a container" >image/root/www/index.html
tar -C image/root -cf image/layer.tar .
layer="$(sha256sum image/layer.tar | cut -d' ' -f1)"
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$layer" >image/config.json
printf '[{"Config":"config.json","RepoTags":["local/web:1"],"Layers":["layer.tar"]}]' >image/manifest.json
tar -C image -cf image.tar config.json layer.tar manifest.json

ip link set lo up
cat >containerd.toml <<END
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$work/socket"
END
containerd -c containerd.toml >containerd.log 2>&1 &
daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon 2>/dev/null || true' EXIT
until ctr -a "$work/socket" version >/dev/null 2>&1; do
    kill -0 "$daemon" || { cat containerd.log; exit 1; }
    sleep 0.1
done
ctr -a "$work/socket" image import --snapshotter native image.tar

ctr -a "$work/socket" run --rm --cni --snapshotter native docker.io/local/web:1 web /bin/httpd -f -p 80 -h /www &
run=$!
networks=/var/lib/cni/networks/containers
until address="$(find "$networks" -maxdepth 1 -name '10.77.*' -printf '%f\n' 2>/dev/null | grep .)" &&
    exec 3<>"/dev/tcp/$address/80"; do
    kill -0 "$run" || { echo "the container ended"; exit 1; }
    sleep 0.1
done 2>/dev/null
printf 'GET / HTTP/1.0\r\n\r\n' >&3
cat <&3
echo "rules while it runs: $(iptables -t nat -S | grep -c 10.77)"
ctr -a "$work/socket" task kill -s KILL web
wait "$run" || true
echo "== left"
ip -o link | grep -o 'wf[0-9a-f]*' || true
find "$networks" -maxdepth 1 -name '10.77.*' -printf '%f\n'
iptables -t nat -S | grep -v '^-P' || true
iptables -S | grep 10.77 || true
