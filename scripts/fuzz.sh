#!/usr/bin/env bash
# Fuzzes each parser of outside bytes for some seconds. usage: scripts/fuzz.sh [SECONDS]
# Needs a nightly toolchain and cargo-fuzz. What a crash was found with stays in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
export CARGO_TARGET_DIR="$WEFT_CACHE/fuzz-target"
PATH="$WEFT_CACHE/tools/bin:$PATH"

# No address sanitizer: of the parsers none has unsafe code, and without it the build is quick.
build=(--fuzz-dir fuzz --sanitizer none)
cargo +nightly fuzz build "${build[@]}"
for source in fuzz/fuzz_targets/*.rs; do
    target="$(basename "$source" .rs)"
    echo "== $target"
    corpus="$WEFT_CACHE/corpus/$target"
    mkdir -p "$corpus"
    folders=("$corpus")
    [ ! -d "fuzz/seeds/$target" ] || folders+=("fuzz/seeds/$target")
    cargo +nightly fuzz run "${build[@]}" "$target" "${folders[@]}" -- \
        -max_total_time="${1:-60}" -max_len=8192 -rss_limit_mb=1024 -timeout=10
done
