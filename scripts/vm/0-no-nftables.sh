# shellcheck shell=bash
# F46: without nf_tables pods reach each other all the same, and each agent says what does not work.
loader="$(cat /proc/sys/kernel/modprobe)"
if ! grep -qE '^(nf_tables|nfnetlink) ' /proc/modules; then
    for module in veth bridge; do modprobe "$module" || true; done
    echo /bin/false >/proc/sys/kernel/modprobe
    remember
    weft lab up --name nonft --nodes 2 --backend host-gw -f examples/two-pods.yaml
    weft lab status --name nonft -o wide | tee nonft.out
    grep -q 'modprobe nf_tables' nonft.out
    far="$(weft lab exec --name nonft pong -- ip -4 -o addr show eth0 | awk '{sub("/.*", "", $4); print $4}')"
    weft lab exec --name nonft ping -- ping -c 2 -W 5 "$far"
    echo "$loader" >/proc/sys/kernel/modprobe
    modprobe nf_tables
    for _ in $(seq 100); do
        if ! weft lab status --name nonft -o wide | grep -q 'modprobe nf_tables'; then break; fi
        sleep 1
    done
    weft lab check --name nonft
    weft lab down --name nonft
    nothing_left
    echo "ok without nf_tables pods reach each other, and with it again all is as it should be"
fi
