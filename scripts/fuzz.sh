#!/usr/bin/env bash
# Fuzzes each parser of outside bytes for some seconds. usage: scripts/fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
export CARGO_TARGET_DIR="$WEFT_CACHE/fuzz-target"
PATH="$WEFT_CACHE/tools/bin:$PATH"
mkdir -p "$WEFT_CACHE/corpus"
for source in fuzz/fuzz_targets/*.rs; do
    target="$(basename "$source" .rs)"
    echo "== $target"
    mkdir -p "$WEFT_CACHE/corpus/$target"
    cargo +nightly fuzz run --fuzz-dir fuzz "$target" "$WEFT_CACHE/corpus/$target" -- \
        -max_total_time="${1:-60}" -max_len=8192 -rss_limit_mb=1024 -timeout=10
done
