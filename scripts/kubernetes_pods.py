#!/usr/bin/env python3
"""Runs the pods of launch/kubernetes on this machine, without a cluster: sudo scripts/kubernetes_pods.py IMAGE

IMAGE is the root file system of the image: buildah mount "$(buildah from ddpm-dist)". kubernetes_node.py plays the part
of the kubelet (runc, with the manifests' user, read-only root, no capabilities, seccomp, volumes, environment, hooks,
grace period), this script those of mpi-operator (keys, hostfile, host names, environment; as in its version 0.8.2)
and of the Job controller (new pods after exit code 75). The checkpoints are in moto's S3 server, which scripts/setup.sh
--tests installs.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

CACHE = Path(os.environ.get("DDPM_CACHE", Path.home() / ".cache/ddpm-dist"))
sys.path.insert(0, str(CACHE / "kubernetes-validate"))  # has PyYAML; scripts/kubernetes_check.sh fetches it
import yaml  # noqa: E402

from kubernetes_node import SUBNET, Node, Pod, call, say  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "launch/kubernetes"
STORE = f"http://{SUBNET}.1:5557"
STEPS = 60


def manifest(kind, name):
    for file in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if (document["kind"], document["metadata"]["name"]) == (kind, name):
                return document
    raise LookupError(kind, name)


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
    return Pod(node, "ddpm-dist-x", spec, None, {"config": config(run, steps)}).start()


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
        key = node.work / f"{run}-key"
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
        return Pod(node, name, spec, self.domain, configs, env)

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


if len(sys.argv) < 2 or os.geteuid() != 0:
    sys.exit(__doc__)
keys = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
secrets = {"ddpm-dist-store": keys | {"AWS_ENDPOINT_URL": STORE, "AWS_ALLOW_HTTP": "true"}}
node = Node(Path(sys.argv[1]).resolve(), secrets)
store = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-H", f"{SUBNET}.1", "-p", STORE.rsplit(":", 1)[1]],
    env=os.environ | {"PYTHONPATH": str(CACHE / "moto")}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
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
    store.send_signal(signal.SIGTERM)
    store.wait()
    node.close()
