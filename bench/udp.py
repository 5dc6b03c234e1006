#!/usr/bin/env python3
"""The udp tunnel pod to pod on two nodes, against other tunnels in the same run.

  bench/udp.py [--paths weft,vxlan,...] [--rounds 5] [--seconds 2] [--only tcp,tcp4,pps,rr,rr1,rr2]

Each path is two nodes in namespaces of this run's own, joined by a veth pair, each with one pod
behind a bridge. weft is the example udp_tunnel of crates/fabric (built in release mode, or
named by TUNNEL); vxlan and host-gw are the kernel's, set up by hand. FLANNEL=PROGRAM adds
flannel: its C proxy in a harness with the arguments
  TUN ADDRESS/LENGTH LOCAL PORT MTU REMOTE_NET LENGTH REMOTE
Measured per path: Gbit/s of one TCP stream and of four (iperf3); 64-byte UDP packets received
a second, in thousands, sent by flood.c as fast as one processor can; median microseconds of a TCP round trip with client and server on one
processor (rr), with the tunnels on that one too (rr1), and with all free to move (rr2).
Needs root, iperf3 and gcc.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
TUNNEL = os.environ.get("TUNNEL", os.path.join(TARGET, "release", "examples", "udp_tunnel"))
FLANNEL = os.environ.get("FLANNEL")
TOOLS = tempfile.mkdtemp(prefix="weft-bench-")
RR, FLOOD = os.path.join(TOOLS, "rr"), os.path.join(TOOLS, "flood")
SERVER, PORT_RR, PORT_FLOOD = "10.244.2.2", "7777", "7778"
running = []


def sh(command):
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}")
    return done.stdout


def start(ns, *command, cpu=None):
    pin = ["taskset", "-c", cpu] if cpu else []
    quiet = None if os.environ.get("VERBOSE") else subprocess.DEVNULL
    process = subprocess.Popen(["ip", "netns", "exec", ns, *pin, *command], stdout=quiet, stderr=quiet)
    running.append(process)
    return process


def down():
    for process in running:
        process.kill()
        process.wait()
    running.clear()
    for line in sh("ip netns").splitlines():
        sh(f"ip netns del {line.split()[0]}")


def nodes(mtu):
    for n in (1, 2):
        sh(f"ip netns add n{n}; ip netns add p{n}; ip -n n{n} link set lo up; ip -n p{n} link set lo up")
        sh(f"ip netns exec n{n} sysctl -qw net.ipv4.ip_forward=1")
    sh("ip link add eth0 netns n1 type veth peer name eth0 netns n2")
    for n in (1, 2):
        sh(f"""ip -n n{n} addr add 192.168.77.{n}/24 dev eth0; ip -n n{n} link set eth0 up
            ip -n n{n} link add br0 mtu {mtu} type bridge; ip -n n{n} addr add 10.244.{n}.1/24 dev br0
            ip -n n{n} link set br0 up
            ip link add v0 mtu {mtu} netns n{n} type veth peer name eth0 mtu {mtu} netns p{n}
            ip -n n{n} link set v0 master br0 up
            ip -n p{n} addr add 10.244.{n}.2/24 dev eth0; ip -n p{n} link set eth0 up
            ip -n p{n} route add default via 10.244.{n}.1""")


def up_weft(cpu):
    nodes(1472)
    for n, o in ((1, 2), (2, 1)):
        start(f"n{n}", TUNNEL, f"192.168.77.{n}:8285", "1472", f"10.244.{n}.0/24",
              f"192.168.77.{o}:8285=10.244.{o}.0/24", cpu=cpu)
        while subprocess.run(["ip", "-n", f"n{n}", "link", "show", "weft-udp0"], capture_output=True).returncode:
            time.sleep(0.01)
        sh(f"""ip -n n{n} addr add 10.244.{n}.0/32 dev weft-udp0
            ip -n n{n} link set weft-udp0 mtu 1472 up; ip -n n{n} route add 10.244.0.0/16 dev weft-udp0""")


def up_flannel(cpu):
    nodes(1472)
    for n, o in ((1, 2), (2, 1)):
        start(f"n{n}", FLANNEL, "flannel0", f"10.244.{n}.0/16", f"192.168.77.{n}", "8285", "1472",
              f"10.244.{o}.0", "24", f"192.168.77.{o}", cpu=cpu)


def up_vxlan(_cpu):
    nodes(1450)
    for n, o in ((1, 2), (2, 1)):
        sh(f"""ip -n n{n} link add vx type vxlan id 1 dstport 8472 local 192.168.77.{n} dev eth0 nolearning
            ip -n n{n} link set vx address 66:00:00:00:00:0{n} mtu 1450 up; ip -n n{n} addr add 10.244.{n}.0/32 dev vx
            ip -n n{n} neigh add 10.244.{o}.0 lladdr 66:00:00:00:00:0{o} dev vx nud permanent
            bridge -n n{n} fdb add 66:00:00:00:00:0{o} dev vx dst 192.168.77.{o} self permanent
            ip -n n{n} route add 10.244.{o}.0/24 via 10.244.{o}.0 dev vx onlink""")


def up_hostgw(_cpu):
    nodes(1500)
    for n, o in ((1, 2), (2, 1)):
        sh(f"ip -n n{n} route add 10.244.{o}.0/24 via 192.168.77.{o}")


def client(*command, cpu=None):
    pin = ["taskset", "-c", cpu] if cpu else []
    return subprocess.run(["ip", "netns", "exec", "p1", *pin, *command], stdout=subprocess.PIPE, text=True).stdout


def reach():
    for _ in range(100):
        if "1 received" in client("ping", "-c1", "-W1", SERVER):
            return
    raise RuntimeError("the path does not carry")


def iperf(seconds, *extra):
    answer = json.loads(client("iperf3", "-J", "-c", SERVER, "-t", str(seconds), *extra, cpu="0"))
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["end"]


def flood(seconds):
    """The path carries: what one processor sends in `seconds`, and how much of it comes."""
    receiver = subprocess.Popen(["ip", "netns", "exec", "p2", "taskset", "-c", "1", FLOOD, "receive", PORT_FLOOD],
                                stdout=subprocess.PIPE, text=True)
    running.append(receiver)
    while PORT_FLOOD not in sh("ip netns exec p2 ss -Hlnu"):
        time.sleep(0.01)
    client(FLOOD, "send", SERVER, PORT_FLOOD, str(seconds), cpu="0")
    return float(receiver.stdout.read())


def measure(up, what, seconds):
    cpu = "0" if what in ("rr", "rr1") else None
    up(cpu if what == "rr1" else None)
    if what.startswith("rr"):
        start("p2", RR, SERVER, PORT_RR, cpu=cpu)
    elif what != "pps":
        start("p2", "iperf3", "-s", cpu="1")
    reach()
    time.sleep(0.2)
    if what == "tcp":
        value = iperf(seconds)["sum_received"]["bits_per_second"] / 1e9
    elif what == "tcp4":
        value = iperf(seconds, "-P", "4")["sum_received"]["bits_per_second"] / 1e9
    elif what == "pps":
        value = flood(seconds) / 1e3
    else:
        value = float(client(RR, SERVER, PORT_RR, str(seconds), cpu=cpu))
    down()
    return value


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--paths", default="weft,vxlan" + (",flannel" if FLANNEL else ""))
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--seconds", type=int, default=2)
    ask.add_argument("--only", default="tcp,tcp4,pps,rr,rr1,rr2")
    given = ask.parse_args()
    paths, kinds = given.paths.split(","), given.only.split(",")
    values = {(path, kind): [] for path in paths for kind in kinds}
    sh(f"gcc -O2 -o {RR} {HERE}/rr.c && gcc -O2 -o {FLOOD} {HERE}/flood.c")
    try:
        for _ in range(given.rounds):
            for kind in kinds:
                for path in paths:
                    up = globals()["up_" + path.replace("-", "")]
                    try:
                        values[path, kind].append(measure(up, kind, given.seconds))
                    except (RuntimeError, ValueError) as error:
                        down()
                        print(f"{path} {kind}: {error}", file=sys.stderr)
    finally:
        down()
        shutil.rmtree(TOOLS)
    text = lambda v: f"{statistics.median(v):.2f} ({min(v):.2f}-{max(v):.2f})" if v else "-"
    print("| path | " + " | ".join(kinds) + " |")
    for path in paths:
        print(f"| {path} | " + " | ".join(text(values[path, kind]) for kind in kinds) + " |")


if os.environ.get("INSIDE") != "1":
    # /run/netns is private to this run, and so is everything in it.
    os.execvpe("unshare", ["unshare", "-n", "-m", "sh", "-c",
               'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec "$0" "$@"',
               sys.executable, os.path.abspath(__file__), *sys.argv[1:]], {**os.environ, "INSIDE": "1"})
main()
