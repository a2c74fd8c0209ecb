"""The checks of scripts/kubernetes_check.sh, which sets the path of their packages."""

import re
import sys
from pathlib import Path

import kubernetes_validate.utils
import yaml

FOLDER = Path("launch/kubernetes")
GUIDE = Path("docs/launching/kubernetes.md")
OLDEST = "1.29"  # before 1.29, the schema of podFailurePolicy wrongly required onPodConditions in each rule

# The fields that mpijob.yaml may use, from the definition of MPIJob in mpi-operator 0.8.2: a type, choices, or fields.
# The pod templates in it are checked against Kubernetes' schema.
MPIJOB = {
    "slotsPerWorker": int,
    "sshAuthMountPath": str,
    "mpiImplementation": {"OpenMPI"},
    "launcherCreationPolicy": {"AtStartup", "WaitForWorkersReady"},
    "runPolicy": {"cleanPodPolicy": {"None", "Running", "All"}, "backoffLimit": int},
    "mpiReplicaSpecs": {
        role: {"replicas": int, "restartPolicy": {"Never", "OnFailure"}, "template": dict}
        for role in ["Launcher", "Worker"]
    },
}

faults = []


def expect(holds, fault):
    if not holds:
        faults.append(fault)


class Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, as kubectl does."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        expect(len(keys) == len(set(keys)), f"{node.start_mark}: a key occurs twice")
        return super().construct_mapping(node, deep)


def versions():
    known = [kubernetes_validate.utils.major_minor(version) for version in kubernetes_validate.utils.all_versions()]
    return list(dict.fromkeys(known[known.index(OLDEST) :]))  # there are two kinds of schemas of each


def check_schema(document, name):
    for version in versions():
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.absolute_path))
            faults.append(f"{name}, Kubernetes {version}: {path}: {error.message}")


def check_fields(value, allowed, path):
    """`value` against a part of MPIJOB."""
    if isinstance(allowed, type):
        expect(type(value) is allowed, f"{path} is not of type {allowed.__name__}")
    elif isinstance(allowed, set):
        expect(value in allowed, f"{path} is {value!r}, not one of {sorted(allowed)}")
    else:
        for key in value:
            if key in allowed:
                check_fields(value[key], allowed[key], f"{path}.{key}")
            else:
                faults.append(f"{path}.{key} is not known to be a field of an MPIJob")


def gibibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)([MG]i)", quantity).groups()
    return int(number) / (1024 if unit == "Mi" else 1)


def made_by_commands():
    """The objects that the commands of the documentation make or replace, each with its file."""
    made = {}
    kinds = {"configmap": "ConfigMap", "secret generic": "Secret"}
    create = r"kubectl create (configmap|secret generic) (\S+) --from-(?:env-)?file=(\S+)"
    for line in re.findall("kubectl create .*", re.sub(r"\\\n\s*", "", GUIDE.read_text())):
        kind, name, source = re.match(create, line).groups()
        expect(line.endswith("--dry-run=client -o yaml | kubectl apply -f -"), f"{GUIDE}: fails if it exists: {line}")
        made[kinds[kind], name] = source
    return made


def check_pod(pod, name):
    """What holds for each pod: its references lead somewhere, it is as confined as the documentation says."""
    container = pod["containers"][0]
    expect(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000, f"{name}: user")
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    expect(container["securityContext"] == confined, f"{name}: the container's securityContext is not {confined}")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    expect(volumes.keys() == mounts.keys(), f"{name}: volumes {[*volumes]} and mounts {[*mounts]} differ")
    expect("/tmp" in mounts.values(), f"{name}: Open MPI needs a /tmp that can be written")
    memory = 0.0
    for volume in volumes.values():
        if "configMap" in volume:
            expect(("ConfigMap", volume["configMap"]["name"]) in made, f"{name}: {GUIDE} makes no such ConfigMap")
        memory += gibibytes(volume.get("emptyDir", {}).get("sizeLimit", "0Mi"))
    expect(memory < gibibytes(container["resources"]["limits"]["memory"]), f"{name}: volumes exceed the memory limit")
    for source in container.get("envFrom", []):
        expect(("Secret", source["secretRef"]["name"]) in made, f"{name}: {GUIDE} makes no such Secret")
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    in_image = ["local.sh", *(path.name for path in FOLDER.glob("*.sh"))]
    for program in [container["command"][0], *hook[:1]]:
        expect(program in in_image, f"{name}: no {program} in the image")
    for argument in container["command"]:
        if argument.endswith(".toml") and "config" in mounts:
            there = Path(mounts["config"]) / made["ConfigMap", volumes["config"]["configMap"]["name"]]
            expect(Path(argument) == there, f"{name}: the configuration is {there}, not {argument}")


def check_job(job):
    spec = job["spec"]
    expect(spec["template"]["spec"]["restartPolicy"] == "Never", "job.yaml: podFailurePolicy needs restartPolicy Never")
    names = {container["name"] for container in spec["template"]["spec"]["containers"]}
    action = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            expect(rule["onExitCodes"]["containerName"] in names, "job.yaml: a rule names a container that is missing")
            action |= dict.fromkeys(rule["onExitCodes"]["values"], rule["action"])
    expect(action == {2: "FailJob", 3: "FailJob", 5: "FailJob", 75: "Ignore"}, "job.yaml: exit codes")


def check_mpijob(job, budget):
    check_fields(job["spec"], MPIJOB, "mpijob.yaml: spec")
    name = job["metadata"]["name"]
    worker = job["spec"]["mpiReplicaSpecs"]["Worker"]
    last = f"{name}-worker-{worker['replicas'] - 1}"
    expect(re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", last), f"mpijob.yaml: {last} is not a host name")
    # These labels are mpi-operator's.
    labels = {"training.kubeflow.org/job-name": name, "training.kubeflow.org/job-role": "worker"}
    expect(budget["spec"]["selector"]["matchLabels"] == labels, "mpijob.yaml: the budget selects other pods")
    expect(budget["spec"]["minAvailable"] == worker["replicas"] - 1, "mpijob.yaml: minAvailable is not workers - 1")
    pod = worker["template"]["spec"]
    spread = pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
    expect(spread == labels, "mpijob.yaml: topologySpreadConstraints select other pods")
    keys = job["spec"]["sshAuthMountPath"]
    container = pod["containers"][0]
    for file in ["ssh.conf", "sshd.conf"]:
        text = (FOLDER / file).read_text()
        expect(keys in text, f"{file} does not look for keys in {keys}")
        port = int(re.search(r"^\s*Port (\d+)", text, re.MULTILINE)[1])
        for there in [container["ports"][0]["containerPort"], container["readinessProbe"]["tcpSocket"]["port"]]:
            expect(port == there, f"{file} has port {port}, mpijob.yaml {there}")
    # The launcher waits for the ranks of all workers to save.
    pods = [role["template"]["spec"] for role in job["spec"]["mpiReplicaSpecs"].values()]
    expect(len({pod["terminationGracePeriodSeconds"] for pod in pods}) == 1, "mpijob.yaml: grace periods differ")


made = made_by_commands()
files = {file.name: [*yaml.load_all(file.read_text(), Loader)] for file in sorted(FOLDER.glob("*.yaml"))}
objects = {(document["kind"], document["metadata"]["name"]): document for part in files.values() for document in part}
for file, documents in files.items():
    for document in documents:
        title = f"{file}: {document['kind']}"
        if document["kind"] == "MPIJob":
            expect(document["apiVersion"] == "kubeflow.org/v2beta1", f"{title} is not of kubeflow.org/v2beta1")
            templates = {role: part["template"] for role, part in document["spec"]["mpiReplicaSpecs"].items()}
        else:
            check_schema(document, title)
            templates = {"": document["spec"]["template"]} if document["kind"] == "Job" else {}
        for role, template in templates.items():
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
            place = f"{title} {role}".strip()
            check_schema(pod, place)
            check_pod(template["spec"], place)
check_job(objects["Job", "ddpm-dist"])
check_mpijob(objects["MPIJob", "ddpm-dist"], objects["PodDisruptionBudget", "ddpm-dist"])

for fault in faults:
    print(f"kubernetes_check: {fault}", file=sys.stderr)
if faults:
    sys.exit(1)
print(f"kubernetes_check: {len(objects)} objects are valid for Kubernetes {versions()[0]} to {versions()[-1]}")
