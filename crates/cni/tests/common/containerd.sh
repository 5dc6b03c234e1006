# Sourced by scripts that run in namespaces of their own (network, mounts, processes): a containerd of the
# test's own in the folder $work, with the plugins of the folder $bin, and an image local/web:1.
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
cd "$work" || exit 1
# ctr and the plugins have their folders built in: they are shadowed, so that the machine's own stay as they are.
for place in etc opt var; do
    mkdir -p "shadow/$place/upper" "shadow/$place/work"
    mount -t overlay -o "lowerdir=/$place,upperdir=$work/shadow/$place/upper,workdir=$work/shadow/$place/work" overlay "/$place"
done
mount -t tmpfs tmpfs /run
mkdir -p /etc/cni/net.d /opt/cni
rm -rf /etc/cni/net.d/* /opt/cni/bin /var/lib/cni
cp -a "$bin" /opt/cni/bin
ip link set lo up

# An image of busybox alone, in the form that `docker save` has; it serves as the sandbox's too.
mkdir -p image/root/bin image/root/www
cp /bin/busybox image/root/bin/
for name in httpd sleep; do ln -s busybox "image/root/bin/$name"; done
echo "hello from a container" >image/root/www/index.html
tar -C image/root -cf image/layer.tar .
layer="$(sha256sum image/layer.tar | cut -d' ' -f1)"
printf '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/bin/sleep","3600"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$layer" >image/config.json
printf '[{"Config":"config.json","RepoTags":["local/web:1"],"Layers":["layer.tar"]}]' >image/manifest.json
tar -C image -cf image.tar config.json layer.tar manifest.json

socket="$work/socket"
cat >containerd.toml <<CONF
version = 2
root = "$work/root"
state = "$work/state"
[grpc]
address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/local/web:1"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
CONF

start_containerd() {
    containerd -c containerd.toml >>containerd.log 2>&1 &
    daemon=$!
    until ctr -a "$socket" version >/dev/null 2>&1; do
        kill -0 "$daemon" || { cat containerd.log; exit 1; }
        sleep 0.1
    done
}

# One call through CRI; $client is what scripts/cri-client.sh built.
cri() {
    "$client" "$socket" "$@" || { tail -n 20 containerd.log >&2; return 1; }
}

id_of() { grep -o '[0-9a-f]\{64\}' | head -n 1; }

# Runs a sandbox of this configuration; its ID.
run_sandbox() { cri RunPodSandbox "{\"config\": $1}" | id_of; }

# Runs a sandbox and in it a container that serves /www on port 80; the sandbox's ID.
run_web() {
    local id container
    id="$(run_sandbox "$1")"
    container="$(cri CreateContainer "{\"pod_sandbox_id\": \"$id\", \"sandbox_config\": $1, \"config\": {
        \"metadata\": {\"name\": \"web\"}, \"image\": {\"image\": \"docker.io/local/web:1\"}, \"linux\": {},
        \"command\": [\"/bin/httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]}}" | id_of)"
    cri StartContainer "{\"container_id\": \"$container\"}" >/dev/null
    echo "$id"
}

# Runs a command until it succeeds, for so many seconds at most.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >until.log 2>&1; do
        [ "$SECONDS" -lt "$until" ] || { echo "not in time: $*"; cat until.log; exit 1; } >&2
        sleep 0.1
    done
    cat until.log
}
