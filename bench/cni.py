"""Measures CNI plugins call by call; started by bench/cni.sh in namespaces of its own.

Every contestant has a node of its own, and each round makes the same calls to each of them in turn,
so that what disturbs the machine disturbs all of them; but with hundreds of pods there is only one
contestant's node at a time, since the kernel's locks are those of the whole machine. The kernel's removal
of namespaces is no part of what is measured, and waited for. Figures are medians over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import time


def run(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def network(kind, data):
    """The plugins of a network, in the order of ADD."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": data}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    if kind == "bridge":
        return [bridge]
    if kind == "masquerade":
        return [dict(bridge, ipMasq=True)]
    if kind == "chain":
        return [dict(bridge, ipMasq=True),
                {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
                {"type": "firewall", "backend": "iptables"}]
    return [{"type": "host-local", "ipam": ipam}]


class Node:
    """A contestant's node, with the pods that it has."""

    serial = 0

    def __init__(self, name, plugins, kind, work):
        self.name, self.plugins, self.work = f"node-{name}-{kind}", plugins, work
        self.data = os.path.join(work, f"data-{self.name}")
        self.network = network(kind, self.data)
        self.pods = []
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "netns", "exec", self.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def batch(self, lines):
        run("ip", "-batch", "-", input="".join(line + "\n" for line in lines))

    def namespaces(self, count):
        made = []
        for _ in range(count):
            Node.serial += 1
            made.append(f"pod{Node.serial}")
        self.batch([f"netns add {pod}" for pod in made])
        self.pods += made
        return made

    def call(self, command, plugin, pods, results, parallel=1):
        """One call for each pod. What each took: wall, user and system time in us, peak KiB."""
        lines = []
        for pod in pods:
            config = dict(plugin, cniVersion="1.0.0", name="bench")
            if plugin["type"] == "portmap":
                port = 10000 + int(pod[3:]) % 50000
                ports = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
                config["runtimeConfig"] = {"portMappings": ports}
            if results.get(pod):
                config["prevResult"] = results[pod]
            files = [os.path.join(self.work, f"{pod}.{end}") for end in ("conf", "out")]
            with open(files[0], "w") as file:
                json.dump(config, file)
            lines.append(f"{pod} /run/netns/{pod} eth0 {files[0]} {files[1]}\n")
        told = run("nsenter", f"--net=/run/netns/{self.name}", os.path.join(self.work, "cnirun"),
                   "-c", command, "-p", self.plugins, "-j", str(parallel),
                   os.path.join(self.plugins, plugin["type"]), input="".join(lines))
        took = {}
        for line in told.splitlines():
            words = line.split()
            if words[0] == "TOTAL":
                total = int(words[1])
                continue
            out = os.path.join(self.work, f"{words[0]}.out")
            if words[5] != "0":
                raise SystemExit(f"{self.name} {command} {plugin['type']}: {open(out).read()}")
            took[words[0]] = [int(word) for word in words[1:5]]
            if command == "ADD":
                with open(out) as file:
                    results[words[0]] = json.load(file)
            for end in ("conf", "out"):
                os.remove(os.path.join(self.work, f"{words[0]}.{end}"))
        return took, total

    def chain(self, command, pod, results):
        """One pod through all plugins."""
        plugins = self.network if command == "ADD" else reversed(self.network)
        sums = [0, 0, 0, 0]
        for plugin in plugins:
            took = self.call(command, plugin, [pod], results)[0][pod]
            sums = [sums[0] + took[0], sums[1] + took[1], sums[2] + took[2], max(sums[3], took[3])]
        return sums

    def fill(self, count):
        pods, results = self.namespaces(count), {}
        for plugin in self.network:
            # Two at a time are too many for Debian's portmap, whose iptables then finds its chains changed.
            self.call("ADD", plugin, pods, results)

    def end(self):
        self.batch([f"netns del {pod}" for pod in self.pods])
        # The kernel does it later; a pod's end on the node goes with it.
        while run("ip", "-n", self.name, "-brief", "link", "show", "type", "veth"):
            time.sleep(0.1)
        run("ip", "netns", "del", self.name)
        subprocess.run(["rm", "-rf", self.data], check=True)


class Table:
    def __init__(self, contestants):
        self.contestants, self.rows = contestants, []
        print("| what | " + " | ".join(contestants) + " | goal |")
        print("|---|" + "---|" * (len(contestants) + 1))

    def row(self, what, values, goal, unit="ms"):
        values = {name: statistics.median(all_) if isinstance(all_, list) else all_
                  for name, all_ in values.items()}
        self.rows.append({"what": what, "unit": unit, "goal": goal, **values})
        shown = " | ".join(f"{values[name]:.1f}" if name in values else "-" for name in self.contestants)
        print(f"| {what} ({unit}) | {shown} | {goal} |", flush=True)


def life(args, table, kind, title, pods, goals):
    """ADD and DEL of one pod, beside `pods` others."""
    adds, dels, cpu, memory = ({name: [] for name, _ in args.contestants} for _ in range(4))
    for together in [args.contestants] if pods == 0 else [[one] for one in args.contestants]:
        nodes = {name: Node(name, path, kind, args.work) for name, path in together}
        for node in nodes.values():
            # The first one makes what all share.
            node.fill(pods + 1)
        for _ in range(args.rounds):
            for name, node in nodes.items():
                results = {}
                pod, = node.namespaces(1)
                took = node.chain("ADD", pod, results)
                adds[name].append(took[0] / 1000)
                cpu[name].append((took[1] + took[2]) / 1000)
                memory[name].append(took[3] / 1024)
                dels[name].append(node.chain("DEL", pod, results)[0] / 1000)
        for node in nodes.values():
            node.end()
    table.row(f"{title} ADD, {pods} pods", adds, goals[0])
    table.row(f"{title} DEL, {pods} pods", dels, goals[1])
    if kind == "bridge" and pods == 0:
        table.row(f"{title}: processor for an ADD", cpu, 2)
        table.row(f"{title}: peak memory of an ADD", memory, 3, "MiB")


def storm(args, table):
    """100 pods, 32 at a time."""
    walls = {name: [] for name, _ in args.contestants}
    for _ in range(max(3, args.rounds // 5)):
        for name, path in args.contestants:
            node = Node(name, path, "masquerade", args.work)
            node.fill(1)
            pods = node.namespaces(100)
            walls[name].append(node.call("ADD", node.network[0], pods, {}, parallel=32)[1] / 1000)
            node.end()
    table.row("bridge with masquerade, 100 pods ADD, 32 at a time", walls, 400)


def account(args, table, taken=60000):
    """host-local alone, with most addresses taken, in the reference's format."""
    nodes = {name: Node(name, path, "account", args.work) for name, path in args.contestants}
    adds, dels = ({name: [] for name in nodes} for _ in range(2))
    address = lambda number: f"10.88.{number >> 8}.{number & 255}"
    for node in nodes.values():
        folder = os.path.join(node.data, "bench")
        os.makedirs(folder)
        for number in range(2, 2 + taken):
            with open(os.path.join(folder, address(number)), "w") as file:
                file.write(f"other-{number}\r\neth0")
        with open(os.path.join(folder, "last_reserved_ip.0"), "w") as file:
            file.write(address(taken + 1))
        pod, = node.namespaces(1)
        node.chain("ADD", pod, {})
        node.chain("DEL", pod, {})
    for _ in range(args.rounds):
        for name, node in nodes.items():
            pod, = node.namespaces(1)
            adds[name].append(node.chain("ADD", pod, {})[0] / 1000)
            dels[name].append(node.chain("DEL", pod, {})[0] / 1000)
    table.row(f"host-local ADD, {taken} addresses taken", adds, 3)
    table.row(f"host-local DEL, {taken} addresses taken", dels, 3)
    for node in nodes.values():
        node.end()


def size(args, table):
    """All that a distribution would install."""
    sizes = {}
    for name, path in args.contestants:
        files = [entry for entry in os.scandir(path) if entry.is_file(follow_symlinks=False)]
        sizes[name] = sum(entry.stat().st_size for entry in files if entry.name != "stamp") / 2**20
    table.row("size of the set, stripped", sizes, 6, "MiB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--json")
    parser.add_argument("--part", action="append", choices=["life", "storm", "account", "size"])
    parser.add_argument("--work", required=True)
    parser.add_argument("contestants", nargs="+", help="NAME=FOLDER")
    args = parser.parse_args()
    args.contestants = [tuple(one.split("=", 1)) for one in args.contestants]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    table = Table([name for name, _ in args.contestants])
    parts = args.part or ["life", "storm", "account", "size"]
    for pods, bridge, chain in ((0, 2, 5), (args.pods, 2.5, 5)) if "life" in parts else ():
        life(args, table, "bridge", "bridge and host-local", pods, (bridge, "-"))
        life(args, table, "chain", "bridge with masquerade, portmap and firewall", pods, (chain, 30))
    for name, part in (("storm", storm), ("account", account), ("size", size)):
        if name in parts:
            part(args, table)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(table.rows, file, indent=1)


main()
