"""This machine as a node for kubernetes_pods.py: runs pods as the kubelet does, each on a network of its own."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

BRIDGE = "ddpm-pods"
SUBNET = "10.88.7"
PREFIX = f"p{os.getpid()}n"  # of the names of network namespaces and containers

began = time.monotonic()


def call(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options).stdout


def say(text):
    print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)


def seccomp():
    """The default profile of Debian's container tools, for a container without capabilities."""
    profile = json.loads(Path("/usr/share/containers/seccomp.json").read_text())
    rules = []
    for rule in profile["syscalls"]:
        includes = rule.get("includes") or {}
        if "caps" in includes or "amd64" not in includes.get("arches", ["amd64"]):
            continue
        entry = {key: rule[key] for key in ["names", "action", "errnoRet"] if rule.get(key) is not None}
        if rule.get("args"):
            entry["args"] = [{key: arg[key] for key in ["index", "value", "op"]} for arg in rule["args"]]
        rules.append(entry)
    return {"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"], "syscalls": rules}


class Node:
    """This machine as a node: a bridge for the pods, and a folder for what they need."""

    def __init__(self, image, secrets):
        self.image, self.secrets = image, secrets
        self.pods = 1
        self.addresses = {}  # of the names that resolve
        self.work = Path(tempfile.mkdtemp(prefix="ddpm-pods-"))
        self.hosts = self.work / "hosts"
        self.name("localhost", "127.0.0.1")
        call("ip", "link", "add", BRIDGE, "type", "bridge")
        call("ip", "addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
        call("ip", "link", "set", BRIDGE, "up")

    def next_number(self):
        self.pods += 1
        return self.pods

    def name(self, host, address):
        """Lets a name resolve to an address, or to none."""
        if address:
            self.addresses[host] = address
        else:
            self.addresses.pop(host, None)
        self.hosts.write_text("".join(f"{address} {host}\n" for host, address in self.addresses.items()))

    def close(self):
        for line in call("runc", "list", "-q").split():
            if line.startswith(PREFIX):
                subprocess.run(["runc", "delete", "-f", line], check=False, capture_output=True)
        for space in re.findall(rf"^{PREFIX}\d+", call("ip", "netns", "list"), re.MULTILINE):
            # The kernel deletes the links of a namespace late.
            subprocess.run(["ip", "link", "del", f"v{space}"], check=False, capture_output=True)
            call("ip", "netns", "del", space)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (path := line.split()[1]).startswith(str(self.work)):
                call("umount", "-l", path)
        shutil.rmtree(self.work)


class Pod:
    """A pod of one container, on a network of its own."""

    def __init__(self, node, name, spec, domain, configs, env=()):
        number = node.next_number()
        self.node, self.name, self.spec, self.configs = node, name, spec, configs
        self.container = spec["containers"][0]
        self.address = f"{SUBNET}.{number}"
        self.host = f"{name}.{domain}" if domain else name
        self.env = dict(env)
        self.starts = 0
        self.folder = node.work / f"{name}-{number}"
        self.log = self.folder / "log"
        self.grace = spec["terminationGracePeriodSeconds"]
        space = self.space = f"{PREFIX}{number}"
        (self.folder / "volumes").mkdir(parents=True)
        call("ip", "netns", "add", space)
        call("ip", "link", "add", f"v{space}", "type", "veth", "peer", "name", "eth0", "netns", space)
        call("ip", "link", "set", f"v{space}", "master", BRIDGE, "up")
        call("ip", "-n", space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ["lo", "eth0"]:
            call("ip", "-n", space, "link", "set", device, "up")
        self.mounts = [self.volume(volume) for volume in spec["volumes"]]

    def volume(self, volume):
        path = self.folder / "volumes" / volume["name"]
        path.mkdir()
        group = self.spec["securityContext"]["fsGroup"]
        directory = volume.get("emptyDir")
        if directory is None:
            for name, content in self.configs[volume["name"]].items():
                (path / name).write_text(content)
                os.chmod(path / name, 0o644)  # as kubelet: root's, readable by the fsGroup
                os.chown(path / name, 0, group)
        elif directory.get("medium") == "Memory":
            size = directory["sizeLimit"].replace("Gi", "g")
            call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
        os.chown(path, 0, group)
        os.chmod(path, 0o2755 if directory is None else 0o2777)
        target = next(m["mountPath"] for m in self.container["volumeMounts"] if m["name"] == volume["name"])
        options = ["bind", "ro"] if directory is None else ["bind"]
        return {"destination": target, "type": "bind", "source": str(path), "options": options}

    def resolves(self, there):
        """The headless service has the addresses of pods that are ready."""
        self.node.name(self.host, self.address if there else None)

    def start(self):
        """The container, again in the same pod if it ran before."""
        self.starts += 1
        bundle = self.folder / f"start-{self.starts}"
        for part in ["upper", "scratch", "rootfs"]:
            (bundle / part).mkdir(parents=True)
        layers = f"lowerdir={self.node.image},upperdir={bundle}/upper,workdir={bundle}/scratch"
        call("mount", "-t", "overlay", "-o", layers, "overlay", bundle / "rootfs")
        user = self.spec["securityContext"]
        inside = self.container["securityContext"]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": self.name}
        env |= {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "HOME": "/home/ddpm"}
        for source in self.container.get("envFrom", []):
            env |= self.node.secrets[source["secretRef"]["name"]]
        env |= self.env
        shm = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=64m", "mode=1777"]}
        hosts = {"destination": "/etc/hosts", "type": "bind", "source": str(self.node.hosts), "options": ["bind", "ro"]}
        limits = self.container["resources"]["limits"]
        memory = int(limits["memory"][:-2]) << {"Mi": 20, "Gi": 30}[limits["memory"][-2:]]
        cpu = {"cpu": {"quota": int(limits["cpu"]) * 100_000, "period": 100_000}} if "cpu" in limits else {}
        specification = {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": user["runAsUser"], "gid": user["runAsGroup"], "additionalGids": [user["fsGroup"]]},
                "args": self.container["command"],
                "env": [f"{key}={value}" for key, value in env.items()],
                "cwd": "/home/ddpm",
                "capabilities": {"bounding": [], "effective": [], "permitted": []},
                "noNewPrivileges": not inside["allowPrivilegeEscalation"],
            },
            "root": {"path": "rootfs", "readonly": inside["readOnlyRootFilesystem"]},
            "hostname": self.name,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec"]},
                hosts,
                *([] if any(m["destination"] == "/dev/shm" for m in self.mounts) else [shm]),
                *self.mounts,
            ],
            "linux": {
                "namespaces": [
                    *({"type": kind} for kind in ["pid", "ipc", "uts", "mount"]),
                    {"type": "network", "path": f"/run/netns/{self.space}"},
                ],
                "seccomp": seccomp(),
                "resources": {"memory": {"limit": memory}, **cpu},
            },
        }
        (bundle / "config.json").write_text(json.dumps(specification))
        self.id = f"{self.space}-{self.starts}"
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                ["nice", "runc", "run", "--bundle", bundle, self.id],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        return self

    def run(self, *command, **options):
        """A command in the container, as kubelet runs hooks."""
        return subprocess.run(["runc", "exec", self.id, *command], capture_output=True, text=True, **options)

    def wait(self, timeout=300):
        return self.process.wait(timeout)

    def until(self, pattern, timeout=120):
        """Waits until the log has the pattern, and returns what it found last."""
        end = time.monotonic() + timeout
        while not (found := re.findall(pattern, self.log.read_text())):
            if time.monotonic() > end or self.process.poll() is not None:
                raise TimeoutError(f"{self.name}: no {pattern!r} in its log:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)
        return found[-1]

    def stop(self):
        """Deletes the pod as kubelet does: the hook, SIGTERM, and SIGKILL when the grace period is over."""
        end = time.monotonic() + self.grace
        hook = self.container.get("lifecycle", {}).get("preStop")
        if hook and self.process.poll() is None:
            self.run(*hook["exec"]["command"], timeout=self.grace)
        if self.process.poll() is None:
            call("runc", "kill", self.id, "TERM")
        try:
            code = self.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            say(f"{self.name}: the grace period is over")
            self.kill()
            code = self.wait()
        self.resolves(False)
        return code

    def kill(self):
        subprocess.run(["runc", "kill", self.id, "KILL"], check=False, capture_output=True)

    def confined(self):
        """What the first process of the container may do, and that the root cannot be written."""
        status = self.run("cat", "/proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        uids, caps = fields["Uid"].split(), {fields[f"Cap{part}"] for part in ["Eff", "Prm", "Bnd"]}
        assert set(uids) == {"1000"} and caps == {"0" * 16}, status
        assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2", status
        written = self.run("touch", "/etc/x", "/usr/x", "/opt/x")
        assert written.stderr.count("Read-only file system") == 3, written.stderr
