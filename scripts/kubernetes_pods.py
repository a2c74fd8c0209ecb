#!/usr/bin/env python3
"""Runs the pods of launch/kubernetes on this machine, without a cluster: sudo scripts/kubernetes_pods.py IMAGE

IMAGE is the root file system of the image: buildah mount "$(buildah from ddpm-dist)". This script plays the parts of
the kubelet (runc, with the manifests' user, read-only root, no capabilities, seccomp, volumes, environment, hooks,
grace period), of mpi-operator (keys, hostfile, host names, environment; as in its version 0.8.2) and of the Job
controller (new pods after exit code 75). The checkpoints are in moto's S3 server, from scripts/setup.sh --tests.

Each pod has its own network namespace and address.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CACHE = Path(os.environ.get("DDPM_CACHE", Path.home() / ".cache/ddpm-dist"))
sys.path.insert(0, str(CACHE / "kubernetes-validate"))  # has PyYAML; scripts/kubernetes_check.sh fetches it
import yaml  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "launch/kubernetes"
BRIDGE = "ddpm-pods"
SUBNET = "10.88.7"
STORE = f"http://{SUBNET}.1:5557"
STEPS = 60
PREFIX = f"p{os.getpid()}n"  # of the names of network namespaces and containers


def call(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options).stdout


def say(text):
    print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)


def manifest(kind, name):
    for file in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if (document["kind"], document["metadata"]["name"]) == (kind, name):
                return document
    raise LookupError(kind, name)


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


class Pod:
    """A pod of one container, on a network of its own."""

    count = 1
    ready = {}  # the addresses of names that resolve

    def __init__(self, name, spec, domain, configs, env=()):
        Pod.count += 1
        self.name, self.spec, self.configs = name, spec, configs
        self.container = spec["containers"][0]
        self.address = f"{SUBNET}.{Pod.count}"
        self.host = f"{name}.{domain}" if domain else name
        self.env = dict(env)
        self.starts = 0
        self.folder = work / f"{name}-{Pod.count}"
        self.log = self.folder / "log"
        self.grace = spec["terminationGracePeriodSeconds"]
        space = self.space = f"{PREFIX}{Pod.count}"
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
        if there:
            Pod.ready[self.host] = self.address
        else:
            Pod.ready.pop(self.host, None)
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {h}\n" for h, a in Pod.ready.items()))

    def start(self):
        """The container, again in the same pod if it ran before."""
        self.starts += 1
        bundle = self.folder / f"start-{self.starts}"
        for part in ["upper", "scratch", "rootfs"]:
            (bundle / part).mkdir(parents=True)
        layers = f"lowerdir={image},upperdir={bundle}/upper,workdir={bundle}/scratch"
        call("mount", "-t", "overlay", "-o", layers, "overlay", bundle / "rootfs")
        user = self.spec["securityContext"]
        inside = self.container["securityContext"]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": self.name}
        env |= {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "HOME": "/home/ddpm"}
        for source in self.container.get("envFrom", []):
            env |= secrets[source["secretRef"]["name"]]
        env |= self.env
        shm = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=64m", "mode=1777"]}
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
                {"destination": "/etc/hosts", "type": "bind", "source": str(hosts), "options": ["bind", "ro"]},
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


def expect(code, wanted, pod):
    assert code == wanted, f"{pod.name} exited with {code}, not {wanted}:\n{pod.log.read_text()[-3000:]}"
    say(f"{pod.name}: exit code {code}")


def config(run, steps=STEPS):
    store = f'[checkpoint]\nuri = "s3://bucket/{run}"\n'
    return {"train.toml": f'extends = "smoke"\n\n{store}\n[train]\nsteps = {steps}\n'}


def shards(run):
    """The hashes of what the last checkpoint consists of."""
    manifest_of = urllib.request.Request(
        f"{STORE}/bucket/{run}/manifest/{STEPS:012}.json",
        headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"},
    )
    return [shard["sha256"] for shard in json.loads(urllib.request.urlopen(manifest_of).read())["shards"]]


def step_of(pod, least):
    """Waits until the run has got to a step."""
    numbers = "|".join(str(step) for step in range(least, STEPS))
    return pod.until(rf"step ({numbers})/")


# --- the Job ------------------------------------------------------------------------------------------------------
def job(run, steps=STEPS):
    spec = manifest("Job", "ddpm-dist")["spec"]["template"]["spec"]
    return Pod("ddpm-dist-x", spec, None, {"config": config(run, steps)}).start()


def try_job():
    pod = job("job")
    step_of(pod, 1)
    pod.confined()
    expect(pod.wait(), 0, pod)
    undisturbed = shards("job")

    pod = job("job-stopped")
    say(f"the pod is deleted at step {step_of(pod, 15)}")
    expect(pod.stop(), 75, pod)
    pod = job("job-stopped")
    say(f"a new pod: {pod.until('resuming from.*')}")
    expect(pod.wait(), 0, pod)
    assert shards("job-stopped") == undisturbed
    say("the weights are those of the run that was not stopped")

    pod = job("job", steps='"many"')
    expect(pod.wait(), 2, pod)


# --- the MPIJob ---------------------------------------------------------------------------------------------------
class MpiJob:
    """What mpi-operator makes of an MPIJob."""

    def __init__(self, run):
        document = manifest("MPIJob", "ddpm-dist")
        self.name, self.spec, self.run = document["metadata"]["name"], document["spec"], run
        self.replicas = self.spec["mpiReplicaSpecs"]["Worker"]["replicas"]
        self.domain = f"{self.name}.default.svc"
        key = work / f"{run}-key"
        call("openssl", "ecparam", "-name", "secp521r1", "-genkey", "-noout", "-out", key)
        public = call("ssh-keygen", "-y", "-f", key)
        self.keys = {"id_rsa": key.read_text(), "id_rsa.pub": public, "authorized_keys": public}
        self.workers = [self.worker(index) for index in range(self.replicas)]
        self.launcher = self.pod("Launcher", f"{self.name}-launcher", {
            "K_MPI_JOB_ROLE": "launcher",
            "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
            "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
            "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
            "OMPI_MCA_orte_set_default_slots": str(self.spec["slotsPerWorker"]),
            "NVIDIA_VISIBLE_DEVICES": "",
            "NVIDIA_DRIVER_CAPABILITIES": "",
        }).start()

    def pod(self, role, name, env):
        spec = json.loads(json.dumps(self.spec["mpiReplicaSpecs"][role]["template"]["spec"]))
        container = spec["containers"][0]
        slots = self.spec["slotsPerWorker"]
        hostfile = [f"{self.name}-worker-{index}.{self.domain} slots={slots}\n" for index in range(self.replicas)]
        configs = {"config": config(self.run), "ssh-auth": self.keys, "mpi-job-config": {"hostfile": "".join(hostfile)}}
        places = {"ssh-auth": self.spec["sshAuthMountPath"]}
        if role == "Launcher":
            places["mpi-job-config"] = "/etc/mpi"
        for volume, place in places.items():
            spec["volumes"].append({"name": volume})
            container["volumeMounts"].append({"name": volume, "mountPath": place})
        return Pod(name, spec, self.domain, configs, env)

    def worker(self, index):
        worker = self.pod("Worker", f"{self.name}-worker-{index}", {"K_MPI_JOB_ROLE": "worker"}).start()
        worker.until("Server listening on .* port 2222")
        worker.resolves(True)
        return worker

    def end(self):
        """cleanPodPolicy: Running"""
        for worker in self.workers:
            began_stop = time.monotonic()
            worker.stop()
            assert time.monotonic() - began_stop < 10, "a worker without ranks takes its time to end"


def try_mpijob():
    job = MpiJob("mpijob")
    step_of(job.launcher, 1)
    for pod in [job.launcher, *job.workers]:
        pod.confined()
    expect(job.launcher.wait(), 0, job.launcher)
    job.end()
    undisturbed = shards("mpijob")

    job = MpiJob("mpijob-stopped")
    say(f"the launcher is deleted at step {step_of(job.launcher, 10)}")
    expect(job.launcher.stop(), 75, job.launcher)
    for delay in [0.1, 0.5, 1, 1.5, 2]:
        job.launcher.start()
        time.sleep(delay)
        say(f"the launcher is deleted {delay} s after its start")
        expect(job.launcher.stop(), 75, job.launcher)
    job.launcher.start()
    say(f"the launcher again: {job.launcher.until('resuming from.*')}")

    say(f"worker 1 is evicted at step {step_of(job.launcher, 25)}")
    job.workers[1].stop()
    expect(job.launcher.wait(), 75, job.launcher)
    job.launcher.start()
    say(f"the launcher again, without worker 1: {job.launcher.until('waiting for .*')}")
    job.workers[1] = job.worker(1)
    say(f"worker 1 is back with another address, {job.workers[1].address}")

    say(f"the node of worker 0 is lost at step {step_of(job.launcher, 45)}")
    call("ip", "-n", job.workers[0].space, "link", "set", "eth0", "down")
    lost = time.monotonic()
    job.workers[0].kill()
    job.workers[0].resolves(False)
    code = job.launcher.wait(600)
    assert code not in (0, 2, 75), code
    say(f"{job.launcher.name}: exit code {code} after {time.monotonic() - lost:.0f} s")
    job.workers[0] = job.worker(0)
    job.launcher.start()
    expect(job.launcher.wait(), 0, job.launcher)
    job.end()
    assert shards("mpijob-stopped") == undisturbed
    say("the weights are those of the run that was not stopped")


def finish():
    for space in re.findall(rf"^{PREFIX}\d+", call("ip", "netns", "list"), re.MULTILINE):
        # The kernel deletes the links of a namespace late.
        subprocess.run(["ip", "link", "del", f"v{space}"], check=False, capture_output=True)
        call("ip", "netns", "del", space)
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if (path := line.split()[1]).startswith(str(work)):
            call("umount", "-l", path)
    shutil.rmtree(work)


began = time.monotonic()
if len(sys.argv) < 2 or os.geteuid() != 0:
    sys.exit(__doc__)
image = Path(sys.argv[1]).resolve()
work = Path(tempfile.mkdtemp(prefix="ddpm-pods-"))
hosts = work / "hosts"
hosts.write_text("127.0.0.1 localhost\n")
keys = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
secrets = {"ddpm-dist-store": keys | {"AWS_ENDPOINT_URL": STORE, "AWS_ALLOW_HTTP": "true"}}
call("ip", "link", "add", BRIDGE, "type", "bridge")
call("ip", "addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
call("ip", "link", "set", BRIDGE, "up")
store = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-H", f"{SUBNET}.1", "-p", STORE.rsplit(":", 1)[1]],
    env=os.environ | {"PYTHONPATH": str(CACHE / "moto")}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
pods = []
try:
    for attempt in range(100):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{STORE}/bucket", method="PUT"))
            break
        except OSError:
            time.sleep(0.2)
    for name in sys.argv[2:] or ["job", "mpijob"]:
        say(f"--- {name}")
        {"job": try_job, "mpijob": try_mpijob}[name]()
    say("all as expected")
finally:
    for line in call("runc", "list", "-q").split():
        if line.startswith(PREFIX):
            subprocess.run(["runc", "delete", "-f", line], check=False, capture_output=True)
    store.send_signal(signal.SIGTERM)
    store.wait()
    finish()
