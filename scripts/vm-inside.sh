#!/usr/bin/env bash
# Runs inside the virtual machine of vm-test.sh; $1 is the folder shared with the outside. The
# scenarios are the files of scripts/vm, in the order of their names.
set -euo pipefail
exec >"$1/log" 2>&1
# The shared folder is a network file system; what runs is copied off it.
local_copy=/run/weft-vm
mkdir -p "$local_copy"
cp -r "$1"/{weft,weft-cni,full_table,tests,examples,scenarios} "$local_copy/"
PATH="$local_copy:/usr/sbin:/sbin:$PATH"
export WEFT_LAB_DIR=/run/weft-lab
mkdir -p "$WEFT_LAB_DIR"
cd "$local_copy"
uname -r
ip link set lo up || busybox ip link set lo up

# What of a lab could be left on the machine: processes, links, mounts, state.
left() {
    find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -lname "$local_copy/*" 2>/dev/null || true
    ip -o link
    cat /proc/self/mounts
    ls -A "$WEFT_LAB_DIR"
}

# The rest of a scenario must leave what is here now.
remember() { left >before; }
nothing_left() {
    left >after
    diff before after
}

# up NAME ARG...: a lab that comes up, is as it should be, and leaves nothing.
up_check_down() {
    local name="$1"; shift
    remember
    weft lab up --name "$name" --nodes 2 -f examples/two-pods.yaml "$@"
    weft lab check --name "$name"
    weft lab down --name "$name"
    nothing_left
}

# refused WORD COMMAND...: it ends with 3, one line of error that holds WORD, and leaves nothing.
refused() {
    local word="$1" status=0; shift
    remember
    "$@" >refused.out 2>refused.err || status=$?
    cat refused.err
    [ "$status" -eq 3 ]
    [ "$(grep -c '^error: ' refused.err)" -eq 1 ]
    grep '^error: ' refused.err | grep -qF "$word"
    [ ! -s refused.out ]
    nothing_left
}

for scenario in scenarios/*.sh; do
    echo "== $scenario"
    # shellcheck source=/dev/null
    . "$scenario"
    echo "== after $SECONDS s"
done
echo "vm: done"
