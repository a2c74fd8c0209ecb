"""What elastic_soak.py disturbs: hosts in network namespaces, and an S3 server that they reach."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

SCRIPT = Path(__file__).with_name("netns_hosts.sh")
LOGIN = "10.77.0.254"
REFUSED = [{"fault": {"refuse": {"status": 503, "code": "SlowDown"}}}]


def children():
    """The process ids of children, by parent, oldest first."""
    found = {}
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            # The name in parentheses may contain anything.
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        found.setdefault(parent, []).append(pid)
    return found


def below(pid):
    """All descendants of a process, nearest first."""
    found, queue = children(), [pid]
    for parent in queue:
        queue.extend(found.get(parent, []))
    return queue[1:]


class Hosts:
    """A login node and hosts h1, h2, ... by netns_hosts.sh."""

    addresses = "10.77.0.0/24"

    def __init__(self, folder, count):
        self.folder, self.local = folder, folder / "local"
        command = [SCRIPT, "up", folder, str(count)]
        self.up = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.up.stdout.readline() != "ready\n":
            raise SystemExit("the hosts are not up: see the line above")

    def end(self):
        """They end with their stdin, and with them all that runs there."""
        self.up.stdin.close()
        self.up.wait()

    def command(self, node, *words):
        return [SCRIPT, "on", self.folder, node, *words]

    def on(self, node, *words):
        subprocess.run(self.command(node, *words), check=True)

    def set_link(self, host, state):
        self.on(host, "ip", "link", "set", "eth0", state)

    def kill(self, host, silent):
        """Ends a host; if `silent`, its peers get no FIN or RST."""
        kill = lambda: self.on(host, "bash", "-c", "kill -KILL -1")  # noqa: E731
        cut = lambda: self.set_link(host, "down")  # noqa: E731
        for act in (cut, kill) if silent else (kill, cut):
            act()

    def revive(self, host):
        self.set_link(host, "up")
        self.on(host, "/usr/sbin/sshd", "-f", str(self.folder / "sshd_config"))

    def kill_rank(self, rank):
        """Kills a rank of the running job; returns whether there was one."""
        wanted = f"OMPI_COMM_WORLD_RANK={rank}".encode()
        for pid in below(self.up.pid):
            try:
                named = Path(f"/proc/{pid}/comm").read_text() == "ddpm-dist\n"
                if named and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)
                    return True
            except OSError:
                pass  # it has ended
        return False


class Store:
    """The fault rig, which listens on this machine, behind a forwarder that listens on the login node."""

    def __init__(self, program, root, network):
        self.rig = subprocess.Popen([program, root, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        host, port = self.rig.stdout.readline().strip().removeprefix("http://").split(":")
        self.rig_address = host, int(port)
        opened = []
        # Only this thread enters the login node's network; the socket stays there.
        thread = threading.Thread(target=lambda: opened.append(self.listen(network)))
        thread.start()
        thread.join()
        if not opened:
            raise SystemExit("the store cannot listen on the login node: see the lines above")
        self.listener = opened[0]
        threading.Thread(target=self.forward, daemon=True).start()

    @staticmethod
    def listen(network):
        pid = (network.folder / "pid/login").read_text().strip()
        with open(f"/proc/{pid}/ns/net") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter the network of process {pid}")
        return socket.create_server((LOGIN, 0))

    def forward(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(self.rig_address)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def environment(self):
        return {
            "AWS_ENDPOINT_URL": f"http://{LOGIN}:{self.listener.getsockname()[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "rig",
            "AWS_SECRET_ACCESS_KEY": "rig-secret",
        }

    def set_rules(self, rules):
        print(json.dumps(rules), file=self.rig.stdin, flush=True)
        self.rig.stdout.readline()

    def refuse(self, seconds):
        """Answers everything with 503 for that time."""
        self.set_rules(REFUSED)
        time.sleep(seconds)
        self.set_rules([])


def pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()
