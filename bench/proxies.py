#!/usr/bin/env python3
"""The agent's Services beside the real kube-proxy's, over one API server, each in a node's namespace of its own.

  bench/proxies.py [--services 10000] [--endpoints 3] [--proxies weft-nftables,...] [--changes 200] [--seconds 20]
                   [--pairs 0] [--rounds 1]
  proxies: weft-nftables, weft-iptables, weft-userspace, kube-nftables, kube-iptables

Measured for each, one after another:
  start    seconds from the start of the program until the last Service answers a connection
  change   milliseconds from before the write of an EndpointSlice until a connection finds the new endpoint: median, p99
  cpu      of one processor, while 100 endpoints a second change for --seconds (user and system)
  memory   MiB resident afterwards, and the most it ever was
  stream   throughput of one TCP stream from a pod through a Service's cluster IP, over what the same stream
           reaches without it: pairs of a second each, median of the ratios (--pairs; 0 leaves it out)
kube-proxy's minSyncPeriod is set to 10 ms: by default it waits a second after each sync. Needs root, iperf3, weft built
in release mode (WEFT), and kube-proxy in the folder WEFT_KUBERNETES: bench/proxies.sh sees to both.
"""
import argparse, base64, collections, concurrent.futures, ctypes, http.client, ipaddress, json, os, shutil, signal, socket
import ssl, statistics, struct, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
WEFT = os.environ.get("WEFT", os.path.join(TARGET, "release", "weft"))
DIR = tempfile.mkdtemp(prefix="weft-bench-")
API, NODE, LAST, PROBE = "192.168.77.2", "192.168.77.1", "10.96.250.1", "10.96.250.2"
REAL = ["10.244.1.2", "10.244.1.3"]
running = []


def sh(command):
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}")
    return done.stdout


def start(*command, env=None, log="log"):
    out = open(os.path.join(DIR, log), "ab")
    process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(env or {})})
    running.append(process)
    return process


def end(process):
    process.send_signal(signal.SIGTERM)
    process.wait()
    running.remove(process)


class Api:
    """A connection to the API server with the administrator's token."""

    def __init__(self, kubeconfig):
        with open(kubeconfig) as file:
            config = json.load(file)
        self.token = config["users"][0]["user"]["token"]
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
        self.tls = ssl.create_default_context(cadata=authority.decode())
        self.local = threading.local()

    def ask(self, method, path, body=None):
        for attempt in range(2):
            if not hasattr(self.local, "connection"):
                self.local.connection = http.client.HTTPSConnection(API, 6443, context=self.tls)
                self.local.connection.connect()
                self.local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self.local.connection
            try:
                connection.request(method, path, json.dumps(body) if body else None,
                                   {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"})
                answer = connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                # It was closed while nothing was asked.
                del self.local.connection
                if attempt:
                    raise
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)


def service(name, address):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}


def slice_of(name, addresses):
    ready = {"ready": True, "serving": True, "terminating": False}
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{name}-x", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": ready, "nodeName": "node2"} for address in addresses]}


SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def fill(api, count, endpoints):
    api.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}})
    api.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}})
    for name, address in (("node1", NODE), ("node2", API)):
        node = api.ask("GET", f"/api/v1/nodes/{name}")
        node["status"] = {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}
        api.ask("PUT", f"/api/v1/nodes/{name}/status", node)

    def one(i):
        name = f"service{i}"
        api.ask("POST", "/api/v1/namespaces/default/services", service(name, str(ipaddress.ip_address("10.96.2.0") + i)))
        api.ask("POST", SLICES, slice_of(name, fake(i, endpoints, 0)))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(count - 2)))
    for name, address in (("last", LAST), ("probe", PROBE)):
        api.ask("POST", "/api/v1/namespaces/default/services", service(name, address))
        api.ask("POST", SLICES, slice_of(name, REAL[:1]))


def fake(i, endpoints, turn):
    """A Service's endpoints that nobody is at; the first of them is another in each turn."""
    first = ipaddress.ip_address("10.128.0.1") + i * 64
    return [str(first + (32 + turn % 16 if n == 0 else n)) for n in range(endpoints)]


def serve(address):
    listener = socket.create_server((address, 8080), backlog=1024)

    def work():
        while True:
            connection, _ = listener.accept()
            connection.sendall(address.encode())
            connection.close()
    threading.Thread(target=work, daemon=True).start()


def asked(ip, patience=1.0):
    """Who answers a new connection to the Service; nothing if nobody does."""
    try:
        with socket.create_connection((ip, 80), patience) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return connection.recv(64).decode()
    except OSError:
        return None


def inside(name):
    """Has the calling thread make its sockets in that namespace."""
    with open(f"/run/netns/{name}") as file:
        enter(file.fileno())


def enter(descriptor):
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


def node_up(kube):
    sh(f"""ip netns add node1; ip netns add pod; ip -n node1 link set lo up; ip -n pod link set lo up
        ip link add under type veth peer name eth0 netns node1
        ip addr add {API}/24 dev under; ip link set under up; ip -n node1 addr add {NODE}/24 dev eth0; ip -n node1 link set eth0 up
        ip -n node1 link add wfpod address 02:00:00:00:00:01 type veth peer name eth0 netns pod; ip -n node1 link set wfpod up
        ip -n pod addr add 10.244.0.2/32 dev eth0; ip -n pod link set eth0 up
        ip -n pod route add 169.254.1.1 dev eth0; ip -n pod route add default via 169.254.1.1
        ip netns exec node1 sysctl -qw net.ipv4.ip_forward=1
        ip -n pod neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0
        ip -n node1 route add 10.244.0.2 dev wfpod
        ip route replace 10.244.0.0/24 via {NODE}; ip route replace 10.96.0.0/16 via {NODE}""")
    if kube:
        sh(f"ip -n node1 route add 10.244.1.0/24 via {API}")


def node_down():
    sh("ip netns del node1; ip netns del pod; ip link del under || true")


def command(proxy, number):
    program, mode = proxy.split("-")
    kubeconfig = os.path.join(DIR, "data", "admin.kubeconfig")
    files = os.path.join(DIR, f"{proxy}-{number}")
    os.makedirs(files)
    if program == "kube":
        kubernetes = os.environ["WEFT_KUBERNETES"]
        config = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
                  "clientConnection": {"kubeconfig": kubeconfig}, "hostnameOverride": "node1", "clusterCIDR": "10.244.0.0/16",
                  "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
                  mode: {"minSyncPeriod": "10ms", "syncPeriod": "1h"}}
        with open(os.path.join(files, "config"), "w") as file:
            json.dump(config, file)
        return [f"{kubernetes}/kube-proxy", "--config", os.path.join(files, "config")]
    paths = [(flag, os.path.join(files, name)) for flag, name in (("--cni-conf-dir", "net.d"), ("--cni-data-dir", "networks"),
             ("--subnet-file", "subnet.env"), ("--state-dir", "agent"))]
    return [WEFT, "agent", "--node-name", "node1", "--kubeconfig", kubeconfig, "--backend", "host-gw", "--proxy", mode,
            "--cluster-cidr", "10.244.0.0/16", *[part for pair in paths for part in pair]]


def processor(pid):
    """Seconds that a process and the children it has waited for have used."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return {name: int(line.split()[1]) // 1024 for line in lines for name in ("VmRSS", "VmHWM") if line.startswith(name)}


def changes(api, count):
    """Times from before each write until a connection finds the new endpoint."""
    times, to = [], 1
    for _ in range(count):
        begin = time.monotonic()
        api.ask("PUT", f"{SLICES}/probe-x", slice_of("probe", [REAL[to]]))
        while asked(PROBE) != REAL[to]:
            pass
        times.append((time.monotonic() - begin) * 1e3)
        to = 1 - to
    api.ask("PUT", f"{SLICES}/probe-x", slice_of("probe", REAL[:1]))
    while asked(PROBE) != REAL[0]:
        pass
    return times


turns = collections.Counter()


def load(api, pid, services, endpoints, seconds):
    """The share of a processor while 100 endpoints a second change."""
    begin, used = time.monotonic(), processor(pid)
    for n in range(100 * seconds):
        i = n * 37 % (services - 2)
        turns[i] += 1
        api.ask("PUT", f"{SLICES}/service{i}-x", slice_of(f"service{i}", fake(i, endpoints, turns[i])))
        time.sleep(max(0, begin + (n + 1) / 100 - time.monotonic()))
    return (processor(pid) - used) / (time.monotonic() - begin)


def stream(to):
    answer = json.loads(sh(f"ip netns exec pod iperf3 -J -c {to} -p 80 -t 1"))
    return answer["end"]["sum_received"]["bits_per_second"] / 1e9


def streams(pairs, direct):
    """Pairs of a stream's throughput through the Service, and without it."""
    server = start("iperf3", "-s", "-p", "8080", "-B", "10.244.1.4")
    values = []
    try:
        for n in range(pairs + 1):
            one = [stream("10.96.250.3"), direct()] if n % 2 else [direct(), stream("10.96.250.3")][::-1]
            values.append(one)
    finally:
        end(server)
    return values[1:]


def measure(api, proxy, number, given):
    node_up(proxy.startswith("kube"))
    begin = time.monotonic()
    inside("node1")
    process = start(*command(proxy, number), log=f"{proxy}.log")
    inside_main()
    try:
        inside("pod")
        while asked(LAST, 0.2) != REAL[0] or asked(PROBE, 0.2) != REAL[0]:
            if process.poll() is not None:
                raise RuntimeError(f"{proxy} ended: {open(os.path.join(DIR, proxy + '.log')).read()[-2000:]}")
            if time.monotonic() - begin > 900:
                raise RuntimeError(f"{proxy} does not serve: {open(os.path.join(DIR, proxy + '.log')).read()[-2000:]}")
            time.sleep(0.01)
        row = {"start": time.monotonic() - begin}
        time.sleep(2)
        row["change"] = sorted(changes(api, given.changes if proxy == "weft-nftables" else max(20, given.changes // 10)))
        row["cpu"] = load(api, process.pid, given.services, given.endpoints, given.seconds)
        row["memory"] = resident(process.pid)
        inside_main()
        if given.pairs:
            direct = lambda: json.loads(sh("ip netns exec pod iperf3 -J -c 10.244.1.4 -p 8080 -t 1"))["end"]["sum_received"]["bits_per_second"] / 1e9
            row["stream"] = streams(given.pairs, direct)
        return row
    finally:
        inside_main()
        end(process)
        node_down()


MAIN = os.open("/proc/self/ns/net", os.O_RDONLY)


def inside_main():
    enter(MAIN)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--services", type=int, default=10000)
    ask.add_argument("--endpoints", type=int, default=3)
    ask.add_argument("--proxies", default="weft-nftables,kube-nftables,weft-iptables,kube-iptables")
    ask.add_argument("--changes", type=int, default=200)
    ask.add_argument("--seconds", type=int, default=20)
    ask.add_argument("--pairs", type=int, default=0)
    ask.add_argument("--rounds", type=int, default=1)
    given = ask.parse_args()
    try:
        sh(f"ip link set lo up; ip addr add {API}/32 dev lo")
        for address in [*REAL, "10.244.1.4"]:
            sh(f"ip addr add {address}/32 dev lo")
        for address in REAL:
            serve(address)
        start(WEFT, "apiserver", "--data-dir", os.path.join(DIR, "data"), "--listen", f"{API}:6443", "--controllers", "false",
              log="apiserver.log")
        while not os.path.exists(os.path.join(DIR, "data", "admin.kubeconfig")) or asked_api() is None:
            time.sleep(0.05)
        api = Api(os.path.join(DIR, "data", "admin.kubeconfig"))
        fill(api, given.services, given.endpoints)
        api.ask("POST", "/api/v1/namespaces/default/services", service("stream", "10.96.250.3"))
        api.ask("POST", SLICES, slice_of("stream", ["10.244.1.4"]))
        print(f"{given.services} Services of {given.endpoints} endpoints are in the API server", file=sys.stderr)
        print("| proxy | start s | change ms: median, p99 | cpu | memory MiB, most | stream over direct |")
        for number in range(given.rounds):
            for proxy in given.proxies.split(","):
                row = measure(api, proxy, number, given)
                times = row["change"]
                ratios = sorted(a / b for a, b in row.get("stream", []))
                shown = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})" if ratios else "-"
                print(f"| {proxy} | {row['start']:.2f} | {statistics.median(times):.2f}, {times[len(times) * 99 // 100]:.2f} "
                      f"({len(times)}) | {row['cpu'] * 100:.1f} % | {row['memory']['VmRSS']}, {row['memory']['VmHWM']} | {shown} |",
                      flush=True)
    finally:
        for process in running:
            process.kill()
            process.wait()
        if not os.environ.get("KEEP"):
            shutil.rmtree(DIR)


def asked_api():
    try:
        socket.create_connection((API, 6443), 1).close()
        return True
    except OSError:
        return None


if os.environ.get("INSIDE") != "1":
    # /run/netns is private to this run, and so is everything in it.
    os.execvpe("unshare", ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c",
               'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec "$0" "$@"',
               sys.executable, os.path.abspath(__file__), *sys.argv[1:]], {**os.environ, "INSIDE": "1"})
main()
