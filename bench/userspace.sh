#!/usr/bin/env bash
# The userspace proxy against haproxy in TCP mode over loopback, in turn, in one namespace of its own.
# usage: bench/userspace.sh [ROUNDS] [SECONDS]
# Measured per round: one TCP stream (iperf3), small requests over kept connections and over new
# ones (wrk against nginx), and without any proxy; and what of the processors the proxy took for it.
# haproxy as it is, and with its own splicing.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds="${1:-5}" seconds="${2:-3}"
proxy="${CARGO_TARGET_DIR:-target}/release/examples/userspace_proxy"
PATH="$PATH:/usr/sbin"

if [ "${INSIDE:-}" != 1 ]; then
    cargo build -q --release --locked -p weft-service --example userspace_proxy
    exec unshare -n -m -p --fork --kill-child --mount-proc env INSIDE=1 bash "$0" "$@"
fi
ip link set lo up
ulimit -n "$(ulimit -Hn)"
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT

cat >"$dir/nginx.conf" <<NGINX
daemon off; worker_processes 2; pid $dir/nginx.pid; error_log $dir/nginx.log;
events { worker_connections 8192; }
http { access_log off; keepalive_requests 1000000000; server { listen 127.0.0.1:8080 backlog=4096; location / { return 200 "ok\n"; } } }
NGINX
haproxy_conf() { # splicing port
    cat <<HAPROXY
global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    $1
listen requests
    bind 127.0.0.1:$2 backlog 4096
    server one 127.0.0.1:8080
listen stream
    bind 127.0.0.1:$(($2 + 1))
    server one 127.0.0.1:5201
HAPROXY
}
haproxy_conf "" 9100 >"$dir/haproxy.cfg"
haproxy_conf "option splice-auto" 9200 >"$dir/splicing.cfg"

nginx -c "$dir/nginx.conf" -p "$dir" 2>/dev/null &
iperf3 -s >/dev/null &
declare -A pid
haproxy -db -f "$dir/haproxy.cfg" >/dev/null 2>&1 & pid[haproxy]=$!
haproxy -db -f "$dir/splicing.cfg" >/dev/null 2>&1 & pid[splicing]=$!
"$proxy" tcp:127.0.0.1:9000=127.0.0.1:8080 tcp:127.0.0.1:9001=127.0.0.1:5201 & pid[weft]=$!

for port in 5201 8080 9000 9001 9100 9101 9200 9201; do
    for _ in $(seq 200); do [ -z "$(ss -Hltn "sport = :$port")" ] || continue 2; sleep 0.05; done
    echo "nobody listens at port $port" >&2; exit 1
done

stream() { # port; Gbit/s
    iperf3 -c 127.0.0.1 -p "$1" -t "$seconds" -J |
        python3 -c 'import json,sys; print("%.2f" % (json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e9))'
}
requests() { # port, wrk's further arguments; requests a second
    local port="$1"; shift
    wrk -t2 -d"${seconds}s" "$@" "http://127.0.0.1:$port/" >"$dir/wrk"
    # A round with errors is told and counted all the same.
    grep -E 'Socket errors|Non-2xx' "$dir/wrk" >&2 || true
    awk '/Requests\/sec/ { print int($2) }' "$dir/wrk"
}
ticks() { if [ "$1" = direct ]; then echo 0; else awk '{ print $14 + $15 }' "/proc/${pid[$1]}/stat"; fi; }
measure() { # what port; the port after it is that of the stream
    case "$1" in
    stream) stream $(($2 == 8080 ? 5201 : $2 + 1)) ;;
    kept) requests "$2" -c64 ;;
    one) requests "$2" -t1 -c1 ;;
    new) requests "$2" -c64 -H 'Connection: close' ;;
    esac
}
# All paths one after the other for each figure, so that what else the machine does meets all.
for round in $(seq "$rounds"); do
    for what in stream kept one new; do
        for path in "weft 9000" "haproxy 9100" "splicing 9200" "direct 8080"; do
            read -r name port <<<"$path"
            before="$(ticks "$name")"
            value="$(measure "$what" "$port")"
            echo "$name $what $value $(($(ticks "$name") - before))"
        done
    done | tee -a "$dir/all" | sed "s/^/# round $round: /" >&2
done
python3 - "$dir/all" "$seconds" <<'PY'
import statistics, sys
runs, seconds = {}, float(sys.argv[2])
for line in open(sys.argv[1]):
    name, what, value, ticks = line.split()
    runs.setdefault(what, {}).setdefault(name, []).append((float(value), int(ticks)))
titles = {"stream": ("one stream, Gbit/s", 10, "ms a Gbit"),
          "kept": ("requests a second, 64 kept connections", 10_000, "us a request"),
          "one": ("requests a second, one kept connection", 10_000, "us a request"),
          "new": ("requests a second, 64 clients, a connection each", 10_000, "us a request")}
for what, by_name in runs.items():
    title, unit, cost_of = titles[what]
    print(title)
    for name, values in by_name.items():
        rates = [rate for rate, _ in values]
        ratios = [mine / other for (mine, _), other in zip(by_name["weft"], rates)]
        cost = statistics.median(ticks * unit / (rate * seconds) for rate, ticks in values)
        print(f"  {name:9} {statistics.median(rates):10.2f} ({min(rates):.2f}-{max(rates):.2f})"
              f"   weft is {statistics.median(ratios):.2f} of it ({min(ratios):.2f}-{max(ratios):.2f})"
              f"   the proxy's processor time {cost:.1f} {cost_of}")
PY
