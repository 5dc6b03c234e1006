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

shared="$(mktemp -d)"
trap 'rm -rf "$shared"' EXIT
cargo build -q --locked -p weft-kernel --example full_table --target-dir "$target"
cp "$target"/debug/{weft,weft-cni,examples/full_table} "$shared/"
cp -r examples "$shared/"
mkdir "$shared/scenarios"
if [ "$#" -eq 0 ]; then
    cp scripts/vm/*.sh "$shared/scenarios/"
else
    for scenario in "$@"; do cp "scripts/vm/$scenario.sh" "$shared/scenarios/"; done
fi
cp scripts/vm-inside.sh "$shared/run.sh"

PATH="$vm/venv/bin:/usr/sbin:$PATH" timeout 1800 vng --run "$kernel" --disable-kvm --user root --rwdir "$shared" \
    --memory 3G --cpus 2 -- "$shared/run.sh" "$shared" </dev/null >"$shared/console" 2>&1 || status=$?
cat "$shared/log" 2>/dev/null || cat "$shared/console"
if ! grep -q '^vm: done$' "$shared/log" 2>/dev/null; then
    echo "vm: the script inside did not finish (exit ${status:-0})"
    exit 1
fi
grep -c '^ok ' "$shared/log" | sed "s|\$| checks passed on $(basename "$kernel")|"
