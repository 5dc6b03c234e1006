# shellcheck shell=bash
# An ordinary user's lab; then each switch that forbids it, which the one line of error names.
root_labs="$WEFT_LAB_DIR"
export WEFT_LAB_DIR=/run/weft-lab-user
mkdir -p "$WEFT_LAB_DIR"
chown 65534:65534 "$WEFT_LAB_DIR"
weft_of_root="$(command -v weft)"
# shellcheck disable=SC2317 # up_check_down and refused call it
weft() { setpriv --reuid 65534 --regid 65534 --clear-groups "$weft_of_root" "$@"; }

up_check_down user --backend host-gw
echo "ok an ordinary user's lab"

for switch in user.max_user_namespaces kernel.unprivileged_userns_clone; do
    if ! allowed="$(sysctl -n "$switch")"; then
        echo "this kernel has no $switch"
        continue
    fi
    sysctl -w "$switch=0"
    refused "sysctl -w $switch=" weft lab up --name user --nodes 2 -f examples/two-pods.yaml
    grep -qE "sysctl -w $switch=[0-9]+\$" refused.err
    sysctl -w "$switch=$allowed"
    echo "ok an ordinary user without $switch is told so"
done
unset -f weft
rmdir "$WEFT_LAB_DIR"
WEFT_LAB_DIR="$root_labs"

allowed="$(sysctl -n user.max_user_namespaces)"
sysctl -w user.max_user_namespaces=0
up_check_down root --backend host-gw
sysctl -w "user.max_user_namespaces=$allowed"
echo "ok root needs no user namespaces"
