#!/usr/bin/env bash
# The virtual machine lane: the scenarios of scripts/vm on the oldest supported kernel (Debian's
# 6.1), each a thing that a test may not do to the machine it runs on. QEMU without KVM, the
# machine's files read-only inside. Exits 77 where it cannot run, with the reason as last line.
# usage: vm-test.sh [SCENARIO]...   (names of scripts/vm without .sh; all when none is given)
set -euo pipefail
cd "$(dirname "$0")/.."

WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
target="${CARGO_TARGET_DIR:-$WEFT_CACHE/target}"
vm="$WEFT_CACHE/vm"
mkdir -p "$vm"

unavailable() { echo "$1"; exit 77; }

if [ ! -x "$vm/venv/bin/vng" ]; then
    { python3 -m venv "$vm/venv" && "$vm/venv/bin/pip" -q install virtme-ng; } ||
        unavailable "virtme-ng could not be installed from PyPI"
fi
if ! compgen -G "$vm/kernel/boot/vmlinuz-*" >/dev/null; then
    (
        cd "$vm"
        image="$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p' | head -n 1)"
        apt-get download -qq "$image"
        dpkg-deb -x "$image"_*.deb kernel
        rm -f "$image"_*.deb
        depmod -b kernel "$(basename kernel/lib/modules/*)"
    ) || unavailable "Debian's kernel package could not be downloaded"
fi
kernel="$(compgen -G "$vm/kernel/boot/vmlinuz-*" | head -n 1)"

# A card with virtual functions is emulated (igb) from QEMU 8 on. Where Debian's is older, that of
# its backports is unpacked beside it; without any the scenario says that it is skipped.
has_card() { [ -x "$1" ] && "$1" -device igb,help 2>/dev/null | grep -q "^igb options"; }
qemu="$(PATH="/usr/sbin:$PATH" command -v qemu-system-x86_64 || true)"
card=()
if ! has_card "$qemu" && ! has_card "$vm/qemu/usr/bin/qemu-system-x86_64"; then
    (
        mkdir -p "$vm/backports/lists/partial"
        cd "$vm/backports"
        key=/usr/share/keyrings/debian-archive-keyring.gpg
        release="$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)"
        echo "deb [signed-by=$key] http://deb.debian.org/debian $release-backports main" >sources
        options=(-qq -o "Dir::Etc::sourcelist=$PWD/sources" -o Dir::Etc::sourceparts=/dev/null
            -o "Dir::State::lists=$PWD/lists" -o APT::Sandbox::User=root)
        apt-get "${options[@]}" update
        apt-get "${options[@]}" download qemu-system-x86 qemu-system-common qemu-system-data
        for package in *.deb; do dpkg-deb -x "$package" "$vm/qemu"; done
        rm -rf "$vm/backports"
    ) >"$vm/backports.log" 2>&1 || echo "vm: QEMU of Debian's backports could not be downloaded"
fi
devices="-device pcie-root-port,id=rp1,slot=1 -netdev hubport,id=h0,hubid=0 -device igb,bus=rp1,netdev=h0,romfile="
if has_card "$qemu"; then
    card=(--qemu "$qemu" --disable-microvm "-o=$devices")
elif has_card "$vm/qemu/usr/bin/qemu-system-x86_64"; then
    export QEMU_MODULE_DIR="$vm/qemu/usr/lib/x86_64-linux-gnu/qemu"
    places="-L /usr/share/seabios -L $vm/qemu/usr/share/qemu"
    card=(--qemu "$vm/qemu/usr/bin/qemu-system-x86_64" --disable-microvm "-o=$places $devices")
fi

shared="$(mktemp -d)"
trap 'rm -rf "$shared" "$shared".*' EXIT
cargo build -q --locked -p weft-kernel --example full_table --target-dir "$target"
cp "$target"/debug/{weft,weft-cni,examples/full_table} "$shared/"
# Tests that not every kernel can run, as programs: the ignored ones of these are run inside.
mkdir "$shared/tests"
for test in weft-service/bench weft-service/ipvs weft-kernel/kinds weft-agent/encapsulation weft-cni/link_kinds weft-cni/veth weft-cni/chained weft-cni/ovs weft-cni/reference; do
    cargo test -q --locked --no-run --message-format=json --target-dir "$target" \
        -p "${test%/*}" --test "${test#*/}" |
        sed -n "/\"name\":\"${test#*/}\"/s/.*\"executable\":\"\([^\"]*\)\".*/\1/p" |
        xargs -I{} cp {} "$shared/tests/${test#*/}"
done
# The reference plugins that the cases of such kinds call, and the cases.
if reference="$(scripts/reference-plugins.sh)"; then
    mkdir "$shared/tests/reference-plugins"
    for plugin in bridge dummy host-local ipvlan ptp static vlan vrf; do
        cp "$reference/$plugin" "$shared/tests/reference-plugins/"
    done
    cp -r crates/cni/tests/reference "$shared/tests/reference-lists"
else
    echo "vm: $reference"
fi
# The real kube-proxy, whose mode ipvs is taken over from.
if kubernetes="$(scripts/kubernetes.sh)"; then
    mkdir "$shared/tests/kubernetes"
    cp "$kubernetes/kube-proxy" "$shared/tests/kubernetes/"
else
    echo "vm: $kubernetes"
fi
cp -r examples "$shared/"
cp scripts/vm-inside.sh "$shared/run.sh"

# machine NAME SCENARIO...: a machine of its own that runs these; its log is $shared/NAME.log.
machine() {
    local name="$1" folder status=0; shift
    folder="$(mktemp -d "$shared.$name.XXXX")"
    cp -rl "$shared/." "$folder/"
    mkdir "$folder/scenarios"
    for scenario in "$@"; do cp "scripts/vm/$scenario.sh" "$folder/scenarios/"; done
    PATH="$vm/venv/bin:/usr/sbin:$PATH" timeout 3600 vng --run "$kernel" --disable-kvm --user root --rwdir "$folder" \
        --memory 3G --cpus 2 "${card[@]}" -- "$folder/run.sh" "$folder" </dev/null >"$folder/console" 2>&1 || status=$?
    mv "$folder/log" "$shared/$name.log" 2>/dev/null || mv "$folder/console" "$shared/$name.log"
    rm -rf "$folder"
    grep -q '^vm: done$' "$shared/$name.log" || echo "vm: the script inside did not finish (exit $status)" >>"$shared/$name.log"
}

# Emulated, a machine seldom keeps more than one processor busy: the long scenarios have one of their own.
long=(8-reference 9-ipvs)
if [ "$#" -eq 0 ]; then
    others=()
    for scenario in scripts/vm/*.sh; do
        scenario="$(basename "$scenario" .sh)"
        [[ " ${long[*]} " == *" $scenario "* ]] || others+=("$scenario")
    done
    machine first "${others[@]}" &
    machine second "${long[@]}"
    wait
else
    machine first "$@"
fi
cat "$shared"/*.log
if grep -q '^vm: the script inside did not finish' "$shared"/*.log; then
    exit 1
fi
skipped="$(sed -n 's/^skipped: /; skipped: /p' "$shared"/*.log | tr -d '\n')"
echo "$(cat "$shared"/*.log | grep -c '^ok ') checks passed on $(basename "$kernel")$skipped"
