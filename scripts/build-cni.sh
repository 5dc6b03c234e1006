#!/usr/bin/env bash
# Builds weft-cni as it is shipped: small, and static. A call lasts milliseconds: the dynamic linker would
# take a third of its processor time, and each page that a process touches first counts. So relocations
# are packed, functions alike are one, and SHA-2 is the short one that does not ask for the processor's
# features, which a hypervisor answers slowly. Leaves it beside the release build of weft and prints its
# path.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-${WEFT_CACHE:-$HOME/.cache/weft}/target}"
export RUSTFLAGS='--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact"'
flags=(-C target-feature=+crt-static)
# The linker that Rust brings there has them; another one need not.
[ "$(uname -m)" != x86_64 ] || flags+=(-C "link-arg=-Wl,-z,pack-relative-relocs" -C "link-arg=-Wl,--icf=all")
cargo rustc --profile cni --locked -p weft-cni --bin weft-cni --target-dir "$target" -- "${flags[@]}" >&2
mkdir -p "$target/release"
ln -f "$target/cni/weft-cni" "$target/release/weft-cni"
echo "$target/release/weft-cni"
