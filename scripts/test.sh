#!/usr/bin/env bash
# Every test lane, one after the other, with a closing count. A lane that cannot run here is
# printed as skipped with its reason; it never passes unseen.
# usage: scripts/test.sh [LANE]...   (lint deny rust lab kubernetes vm fuzz)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 3

export WEFT_CACHE="${WEFT_CACHE:-$HOME/.cache/weft}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$WEFT_CACHE/target}"
export CARGO_TERM_COLOR=never
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

passed=0 failed=0 skipped=0
started=$SECONDS last=$SECONDS
summary=""
: >"$logs/failures"

# Says how a lane ended, and how long ago the one before did.
note() { # lane, verdict, detail
    local took=$((SECONDS - last))
    last=$SECONDS
    summary+="$(printf '%-10s %-8s %5d s  %s' "$1" "$2" "$took" "$3")"$'\n'
    printf '==> %s: %s in %d s %s\n' "$1" "$2" "$took" "$3"
}

# Keeps what a failed lane said of its failures, for the end of the output: a reader of the last page
# must know what failed and why.
remember() { # lane
    {
        printf '%s\n' "--- $1"
        awk '/^failures:$/ { on = 1 } /^test result:/ { on = 0 } on || /^error/' "$logs/$1" | cut -c1-500 | head -n 80
    } >>"$logs/failures"
}

skip() { skipped=$((skipped + 1)); note "$1" skipped "$2"; }

# Runs a lane that is one check.
check() {
    local lane="$1"; shift
    printf '==> %s: %s\n' "$lane" "$*"
    if "$@" >"$logs/$lane" 2>&1; then
        passed=$((passed + 1)); note "$lane" passed ""
    else
        failed=$((failed + 1)); tail -n 60 "$logs/$lane"; note "$lane" FAILED "$*"
        { printf '%s\n' "--- $lane"; tail -n 20 "$logs/$lane" | cut -c1-500; } >>"$logs/failures"
    fi
}

# Runs a lane of cargo tests and adds up what its test runners counted.
cargo_tests() {
    local lane="$1" ok=0 bad=0 ignored=0 status=0; shift
    printf '==> %s: %s\n' "$lane" "$*"
    # What waits for ever is a failure of its own, with the tests after it untold. In the foreground, so
    # that an interrupt reaches the tests.
    timeout --foreground 2400 "$@" >"$logs/$lane" 2>&1 || status=$?
    [ "$status" -ne 124 ] || echo "error: ended after 40 minutes" >>"$logs/$lane"
    while read -r p f i; do
        ok=$((ok + p)) bad=$((bad + f)) ignored=$((ignored + i))
    done < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' "$logs/$lane")
    [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + ignored))
    if [ "$bad" -gt 0 ]; then
        grep -E '^(test .* FAILED|error|failures:|---- |thread .* panicked)' "$logs/$lane" | head -n 60
        tail -n 120 "$logs/$lane"
        note "$lane" FAILED "$ok passed, $bad failed"
        remember "$lane"
    else
        note "$lane" passed "$ok tests"
    fi
}

lint() {
    check fmt cargo fmt --all --check
    check clippy cargo clippy --workspace --all-targets --locked -- -D warnings
    if command -v shellcheck >/dev/null; then
        check shell shellcheck -x scripts/*.sh bench/*.sh crates/*/tests/*.sh .ci/run
    else
        skip shell "shellcheck is not installed"
    fi
    check names scripts/check-docs.sh
}

deny() {
    local tool="$WEFT_CACHE/tools/bin/cargo-deny"
    [ -x "$tool" ] || cargo install cargo-deny --locked --root "$WEFT_CACHE/tools" >"$logs/deny-install" 2>&1
    if [ ! -x "$tool" ]; then
        skip deny "cargo-deny could not be installed: $(tail -n 1 "$logs/deny-install")"
        return
    fi
    check licences "$tool" --all-features check licenses bans sources
    if timeout 60 "$tool" fetch db >"$logs/deny-db" 2>&1; then
        check advisories "$tool" check advisories
    else
        skip advisories "the advisory database cannot be fetched from here"
    fi
}

# Builds the reference CNI plugins that the tests of crates/cni compare with, and a client of CRI.
reference() {
    local built
    if built="$(scripts/reference-plugins.sh 2>"$logs/reference-plugins")"; then
        export WEFT_REFERENCE="$built"
    else
        skip reference "$built"
    fi
    if built="$(scripts/cri-client.sh 2>"$logs/cri-client")"; then
        export WEFT_CRI="$built"
    else
        skip cri "$built"
    fi
    if ! command -v firewalld >/dev/null; then
        # Its test is counted among the ignored ones.
        note firewalld skipped "it is not installed, since that would change this machine's own packet filter"
    fi
}

rust() {
    reference
    cargo_tests rust cargo test --workspace --locked --no-fail-fast --exclude weft-cli
    if [ -x /usr/lib/cni/bridge ]; then
        WEFT_REFERENCE=/usr/lib/cni cargo_tests debian cargo test --locked -p weft-cni --test reference
    else
        skip debian "its package containernetworking-plugins is not installed"
    fi
}

lab() {
    cargo build --locked -p weft-cli -p weft-cni >"$logs/lab-build" 2>&1 || tail -n 40 "$logs/lab-build"
    cargo_tests lab cargo test --locked --no-fail-fast -p weft-cli -- --test-threads=2
}

kubernetes() {
    local status=0
    WEFT_KUBERNETES="$(scripts/kubernetes.sh 2>"$logs/kubernetes-build")" || status=$?
    case "$status" in
    0) ;;
    77) skip kubernetes "$WEFT_KUBERNETES"; return ;;
    *) failed=$((failed + 1)); tail -n 40 "$logs/kubernetes-build"; note kubernetes FAILED "it cannot be built"; return ;;
    esac
    export WEFT_KUBERNETES
    if WEFT_DEFINITIONS="$(scripts/definitions.sh 2>"$logs/definitions")"; then
        export WEFT_DEFINITIONS
    else
        skip definitions "$WEFT_DEFINITIONS"
    fi
    cargo_tests kubernetes cargo test --locked -p weft-apiserver --test judge
    cargo_tests kube-proxy cargo test --locked -p weft-service --test bench -- --ignored kube_proxy
    cargo build --locked -p weft-cli -p weft-cni >"$logs/lab-build" 2>&1 || tail -n 40 "$logs/lab-build"
    cargo_tests joined cargo test --locked -p weft-cli --test kubernetes --test kube_proxy --test controller -- --ignored
    if WEFT_FLANNEL="$(scripts/flannel.sh 2>"$logs/flannel-build")"; then
        export WEFT_FLANNEL
        cargo_tests flannel cargo test --locked -p weft-cli --test flannel -- --ignored --test-threads=1
    else
        skip flannel "$WEFT_FLANNEL"
    fi
}

vm() {
    if ! scripts/install-deps.sh vm >"$logs/vm-deps" 2>&1; then
        skip vm "packages missing: $(tail -n 1 "$logs/vm-deps")"
        return
    fi
    local status=0
    scripts/vm-test.sh >"$logs/vm" 2>&1 || status=$?
    case "$status" in
    0) passed=$((passed + 1)); note vm passed "$(tail -n 1 "$logs/vm")" ;;
    77) skip vm "$(tail -n 1 "$logs/vm")" ;;
    *) failed=$((failed + 1)); tail -n 60 "$logs/vm"; note vm FAILED ""
       { echo "--- vm"; grep -n 'FAILED' "$logs/vm" | head -n 20; tail -n 20 "$logs/vm"; } | cut -c1-500 >>"$logs/failures" ;;
    esac
}

fuzz() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        skip fuzz "needs a nightly compiler (rustup toolchain install nightly); the property tests cover the same parsers"
        return
    fi
    local tool="$WEFT_CACHE/tools/bin/cargo-fuzz"
    [ -x "$tool" ] || cargo install cargo-fuzz --locked --root "$WEFT_CACHE/tools" >"$logs/fuzz-install" 2>&1
    if [ ! -x "$tool" ]; then
        skip fuzz "cargo-fuzz could not be installed: $(tail -n 1 "$logs/fuzz-install")"
        return
    fi
    check fuzz scripts/fuzz.sh 5
}

lanes=("$@")
[ "$#" -gt 0 ] || lanes=(lint deny rust lab kubernetes vm fuzz)
for lane in "${lanes[@]}"; do "$lane"; done

printf '\n'
cat "$logs/failures"
printf '\n%s\n' "$summary"
printf 'in %d s\n' $((SECONDS - started))
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
