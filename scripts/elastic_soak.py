"""The scenario of elastic_soak.sh, which says what it promises: elastic_soak.py SEED EVENTS TIMEOUT

First a run without disturbance, on all hosts, for a fixed time; it determines the number of steps. Then the job. Last
the replay: launch/local.sh on as many ranks as the job had, step by step.
"""

import array
import functools
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from elastic_hosts import Hosts, Store, below

SLOTS = {"h1": 2, "h2": 1, "h3": 1}
BATCH = 24
EVERY = 10
SECONDS_PER_EVENT = 7  # of undisturbed training: the least time between two events, on average
SETTINGS = {
    "train.global_batch": BATCH,
    "checkpoint.every": EVERY,
    "checkpoint.keep_every": EVERY,
    "checkpoint.lease_s": 5,
    "monitor.sample_every": 0,
    "monitor.tensorboard": "false",
}
WEIGHTS = {"host_down": 2, "host_back": 2, "link_down": 1, "rank_killed": 1, "store_503": 1}


def say(text):
    print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)


def ranks_on(hosts):
    """The number of ranks that the supervisor starts on these hosts."""
    return max(n for n in range(1, sum(SLOTS[host] for host in hosts) + 1) if BATCH % n == 0)


def plan(seed, count, timeout):
    """The events. One host at least is up all the time, and the pauses are shares of an event's steps."""
    draw = random.Random(seed)
    up, events = set(SLOTS), []
    for _ in range(count):
        impossible = {1: "host_down", len(SLOTS): "host_back"}.get(len(up))
        possible = {kind: weight for kind, weight in WEIGHTS.items() if kind != impossible}
        [kind] = draw.choices(list(possible), possible.values())
        event = {"event": kind, "pause": round(draw.uniform(0.2, 1), 2)}
        match kind:
            case "host_down":
                # Its connections break, or go silent first, as when it loses power.
                event |= {"host": draw.choice(sorted(up)), "silent": draw.random() < 0.5}
                up.remove(event["host"])
            case "host_back":
                event["host"] = draw.choice(sorted(set(SLOTS) - up))
                up.add(event["host"])
            case "link_down":
                # Some of these the job survives: mpirun gives a host up after 0.4 to 0.75 of the limit.
                event |= {"host": draw.choice(sorted(up)), "seconds": round(draw.uniform(0.1, 1.4) * timeout, 1)}
            case "rank_killed":
                event["rank"] = draw.randrange(ranks_on(up))
            case "store_503":
                event["seconds"] = round(draw.uniform(0.1, 1.4) * timeout, 1)
        events.append(event | {"ranks": ranks_on(up)})
    return events


def apply(event):
    match event["event"]:
        case "host_down":
            network.kill(event["host"], event["silent"])
        case "host_back":
            network.revive(event["host"])
        case "link_down":
            network.set_link(event["host"], "down")
            time.sleep(event["seconds"])
            network.set_link(event["host"], "up")
        case "rank_killed":
            job.wait_for(f"rank {event['rank']} to be killed", lambda: network.kill_rank(event["rank"]))
        case "store_503":
            store.refuse(event["seconds"])


def settings(**more):
    pairs = SETTINGS | {"comm.timeout_s": timeout} | more
    return [word for name, value in pairs.items() for word in ("--set", f"{name}={value}")]


def train(name, steps, uri=None):
    """The words of a training into the folder `name`."""
    more = {"run.dir": work / name} | ({"checkpoint.uri": uri} if uri else {})
    return ["train", "--config", "smoke", "--steps", steps, *settings(**more)]


def start(name, command, **options):
    log = open(work / f"{name}.log", "w")
    return subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)


def complete_lines(file):
    """The objects of a file of JSON lines, as text, without one that is being written."""
    text = file.read_text() if file.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def metrics(name):
    return [json.loads(line) for line in complete_lines(work / name / "metrics.jsonl")]


def last_step(name):
    lines = complete_lines(work / name / "metrics.jsonl")
    return json.loads(lines[-1])["step"] if lines else 0


class Broken(Exception):
    """A promise without which there is nothing more to test."""


class Job:
    """The supervised job."""

    def __init__(self, steps):
        self.file = work / "events.jsonl"
        launch = ["launch/hosts.sh", "-n", "{ranks}", "-i", network.addresses, "{hosts}"]
        command = [program, "supervise", "--hosts", hosts_file, "--events", self.file, "--probe-every", "1s",
                   "--settle", "3s", "--backoff", "1s", "--max-backoff", "4s", "--max-restarts", "1000"]
        training = train("job", steps, "s3://bucket/job")
        self.process = start("job", network.command("login", *command, "--", *launch, *training), env=environment)
        self.most = 0  # the last step that it has ever logged

    def events(self, kind):
        events = [json.loads(line) for line in complete_lines(self.file)]
        return [event for event in events if event["event"] == kind]

    def ranks(self):
        """How many are running, as far as the supervisor knows."""
        started = self.events("started")
        return started[-1]["ranks"] if len(started) > len(self.events("exited")) else 0

    def ended(self):
        return self.process.poll() is not None

    def step(self):
        step = last_step("job")
        self.most = max(self.most, step)
        return step

    def wait_for(self, what, done):
        """Waits; returns whether it came to that before the job ended."""
        limit = time.monotonic() + 120 + 10 * timeout
        while not done():
            if self.ended():
                return False
            if time.monotonic() > limit:
                raise Broken(f"waited {120 + 10 * timeout} s for {what}: see {work}/job.log")
            time.sleep(0.1)
        return True

    def recover(self, ranks):
        """Waits until it trains on that many ranks, and has come further with them than ever before."""
        before = 0

        def recovered():
            nonlocal before
            step = self.step()
            if not before or self.ranks() != ranks:
                before = self.most
            return step > before + 2

        return self.wait_for(f"training on {ranks} ranks to pass its last step", recovered)


def undisturbed(seconds):
    """Trains for that time on all hosts; returns the steps."""
    launch = ["launch/hosts.sh", "-i", network.addresses, hosts_file]
    training = train("undisturbed", 10**6, "s3://bucket/undisturbed")
    run = start("undisturbed", network.command("login", *launch, *training), env=environment)
    while last_step("undisturbed") == 0 and run.poll() is None:
        time.sleep(0.1)
    if run.poll() is None:
        time.sleep(seconds)
        # The launcher is below the script that enters the login node, and nsenter.
        os.kill(below(run.pid)[1], signal.SIGTERM)
    if run.wait() != 75:
        sys.exit(f"the undisturbed run ended with code {run.returncode}: {(work / 'undisturbed.log').read_text()}")
    return last_step("undisturbed")


def disturb(events, steps):
    """Applies the events, each once the job has recovered from the one before and has come to its part of the steps."""
    applied = []
    job.recover(ranks_on(SLOTS))
    for index, event in enumerate(events):
        due = (index + event["pause"]) * steps / (len(events) + 1)
        if not job.wait_for(f"step {due:.0f}", lambda: job.step() >= due):
            break
        starts, since = len(job.events("started")), time.monotonic()
        line = {"at_s": round(since - began, 1), "step": job.step(), **event}
        print(json.dumps(line), file=event_log, flush=True)
        say(json.dumps(line))
        apply(event)
        recovered = job.recover(event["ranks"])
        line["recovered_s"] = round(time.monotonic() - since, 1) if recovered else None
        line["restarts"] = len(job.events("started")) - starts
        applied.append(line)
    job.wait_for("the end of the job", lambda: False)
    return applied


def history(steps):
    """By how many ranks each step of the finished job was computed: [(the step before, ranks)]."""
    began_at = re.compile(r"start (\d+) of the job|resuming from step (\d+)|starting at step (0) in ")
    starts = {event["attempt"]: event["ranks"] for event in job.events("started")}
    parts, attempt = [], 0
    for found in began_at.finditer((work / "job.log").read_text()):
        if found[1]:
            attempt = int(found[1])
            continue
        step = int(found[2] or found[3])
        parts = [part for part in parts if part[0] < step] + [(step, starts[attempt])]
    parts = [part for part in parts if part[0] < steps]
    return [part for index, part in enumerate(parts) if index == 0 or part[1] != parts[index - 1][1]]


def replay(parts, steps):
    """The same steps on the same numbers of ranks, on this machine, with checkpoints in a folder."""
    ends = [step for step, _ in parts[1:]] + [steps]
    for (_, ranks), end in zip(parts, ends):
        run = start(f"replay-{end}", ["launch/local.sh", ranks, *train("replay", end)], env=environment)
        if run.wait() != 0:
            raise Broken(f"the replay ended with code {run.returncode}: see {work}/replay-{end}.log")


@functools.cache
def weights(store, step):
    """The tensors of a checkpoint, weights and averages: {file: (description, bytes)}."""
    out = work / f"export-{store.name}-{step}"
    call(program, "export", f"{store}@{step}", "--format", "safetensors", "--weights", "raw", "--no-grid", "--out", out)
    files = {}
    for file in sorted(out.glob("*.safetensors")):
        whole = file.read_bytes()
        start_of_data = 8 + struct.unpack("<Q", whole[:8])[0]
        files[file.name] = whole[:start_of_data], whole[start_of_data:]
    return files


def call(*command):
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise Broken(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr.strip()}")


def distance(ours, theirs):
    """The largest difference of two sets of weights, relative to the largest weight of the tensors' file."""
    worst = 0
    for name in theirs:
        a, b = array.array("f", ours[name][1]), array.array("f", theirs[name][1])
        worst = max(worst, max(abs(x - y) for x, y in zip(a, b)) / max(map(abs, b)))
    return worst


def judge(steps, events, applied):
    """The verdicts: [(whether the promise was kept, the promise and its figures)]."""
    code = job.process.wait()
    yield code == 0, f"the job finished: the supervisor's exit code is {code}"
    yield len(applied) == len(events), f"{len(applied)} of {len(events)} events came before its end"
    losses = {name: {line["step"]: line["loss"] for line in metrics(name)} for name in ["job", "undisturbed"]}
    logged = [line["step"] for line in metrics("job")]
    yield logged == list(range(1, steps + 1)), f"metrics.jsonl has each of {steps} steps once"
    if code != 0 or logged != list(range(1, steps + 1)):
        return
    call(program, "checkpoints", "verify", stores / "job")
    parts = history(steps)
    most = ranks_on(SLOTS)
    same = 0 if parts[0][1] != most else parts[1][0] if len(parts) > 1 else steps
    say("ranks: " + ", ".join(f"{ranks} from step {step + 1}" for step, ranks in parts))
    replay(parts, steps)
    losses["replay"] = {line["step"]: line["loss"] for line in metrics("replay")}

    ours, theirs = losses["job"], losses["undisturbed"]
    equal = all(ours[step] == theirs[step] for step in range(1, same + 1))
    yield equal, f"losses equal the undisturbed run's bit for bit up to step {same}, by {most} ranks throughout"
    kept = same if same == steps else same // EVERY * EVERY
    if kept:
        equal = weights(stores / "job", kept) == weights(stores / "undisturbed", kept)
        yield equal, f"weights and averages equal its bit for bit at step {kept}, the last checkpoint up to there"
    later = [(abs(ours[step] - theirs[step]) / abs(theirs[step]), step) for step in range(same + 1, steps + 1)]
    if later:
        worst, step = max(later)
        yield worst <= 1e-5, f"later losses are within 1e-5 of the undisturbed run's: {worst:.1e} at step {step}"
    differing = [step for step in ours if ours[step] != losses["replay"][step]]
    where = f"; step {differing[0]} is the first of {len(differing)} that differ" if differing else ""
    yield not differing, f"all losses equal the replay's, on the same numbers of ranks, bit for bit{where}"
    last = weights(stores / "job", steps)
    equal = last == weights(work / "replay/checkpoints", steps)
    yield equal, "weights and averages equal the replay's bit for bit at the last step"
    off = distance(last, weights(stores / "undisturbed", steps))
    say(f"the last weights are within {off:.1e} of the undisturbed run's")


def report(steps, applied, verdicts, seconds):
    print(f"\n{'event':<12} {'of':<10} {'at':>8} {'step':>6} {'ranks':>5} {'restarts':>8} {'recovered in':>12}")
    for line in applied:
        details = [line.get("host"), "silent" if line.get("silent") else None, line.get("rank")]
        details.append(f"{line['seconds']} s" if "seconds" in line else None)
        of = " ".join(str(detail) for detail in details if detail is not None)
        recovered = f"{line['recovered_s']} s" if line["recovered_s"] else "ended"
        print(f"{line['event']:<12} {of:<10} {line['at_s']:>6} s {line['step']:>6} {line['ranks']:>5} "
              f"{line['restarts']:>8} {recovered:>12}")
    for summary in job.events("summary"):
        spent = {key: f"{summary[f'{key}_s']:.0f} s" for key in ["wall", "trained", "lost", "waiting", "other"]}
        print(f"\n{summary['restarts']} restarts in {spent['wall']}; goodput {100 * summary['goodput']:.1f} %: "
              f"{spent['trained']} trained {summary['trained_steps']} steps, {spent['lost']} lost with "
              f"{summary['lost_steps']} steps, {spent['waiting']} waiting, {spent['other']} other")
    print(f"undisturbed: {steps} steps in {seconds} s\n")
    for kept, promise in verdicts:
        print(f"{'ok    ' if kept else 'BROKEN'} {promise}")


seed, count, timeout = map(int, sys.argv[1:])
began = time.monotonic()
program = os.environ["DDPM_DIST"]
work = Path(tempfile.mkdtemp(prefix="elastic-"))
event_log = open(f"runs/elastic-{seed}.jsonl", "w")
hosts_file = work / "hosts.txt"
hosts_file.write_text("".join(f"{host} slots={slots}\n" for host, slots in SLOTS.items()))
stores = work / "s3/bucket"
broken = True
network = Hosts(work / "net", len(SLOTS))
try:
    store = Store(Path(program).parent / "examples/fault_rig", work / "s3", network)
    environment = os.environ | store.environment() | {"OMP_NUM_THREADS": "1", "TMPDIR": str(network.local)}
    say(f"hosts and store are up; everything is in {work}")
    steps = undisturbed(SECONDS_PER_EVENT * (count + 1))
    say(f"undisturbed: {steps} steps")
    events = plan(seed, count, timeout)
    job = Job(steps)
    verdicts, applied = [], []
    try:
        applied = disturb(events, steps)
        verdicts.extend(judge(steps, events, applied))
    except Broken as promise:
        verdicts.append((False, str(promise)))
    report(steps, applied, verdicts, SECONDS_PER_EVENT * (count + 1))
    broken = not all(kept for kept, _ in verdicts)
finally:
    network.end()
    if broken:
        print(f"the logs are in {work}", file=sys.stderr)
    else:
        shutil.rmtree(work)
sys.exit(broken)
