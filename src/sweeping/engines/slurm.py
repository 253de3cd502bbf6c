"""Slurm: one array job, each task of which works on the study until no run is left to begin.

By sbatch itself, not by submitit: that sends pickled Python functions and restarts them by a checkpoint of its own,
while a job here is one command line that resumes by itself. What is left to do is the script below.
"""

import math
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sweeping.estimate import Estimate
from sweeping.submission import FOLDER, SPARE, Order, Submission
from utils.args import ConfigError, nearest
from utils.identity import identity
from utils.messages import count, duration, unwritable
from utils.runs import read_json

INSTALL = "apt-get install slurm-wlm"
SHARED_SECONDS = 60  # NFS may show a folder of a minute ago
MOST_TASKS = 1000  # Slurm's MaxArraySize is 1001 unless it is configured

SCRIPT = """\
#!/bin/bash
# Works on a study until no run of it is left to begin. Submit it with: sbatch {script}
{flags}

folder={folder}
# This job alone: the last one of an array has the number of the whole array.
this=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
this=${{this:-$SLURM_JOB_ID}}

# The first look: do the nodes share the results folder? (NFS may show it as it was a minute ago.)
for _ in $(seq {looks}); do [ -e "$folder/submission.json" ] && break; sleep 1; done
if [ ! -e "$folder/submission.json" ]; then
    scontrol update JobId="$this" Comment={not_shared}" (node $(hostname))"
    scancel "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}"
    exit 2
fi
exec >>"$folder/job_${{SLURM_ARRAY_TASK_ID:-0}}.txt" 2>&1

# USR2: {warning} s before the time limit, or before a preemption. The runs save, and the job goes back into the queue.
trap 'warned=1; kill -TERM "$job"' USR2
trap : TERM  # Slurm sends it to the runs as well
{command} &
job=$!
wait "$job"; status=$?
while kill -0 "$job" 2>/dev/null; do wait "$job"; status=$?; done
if [ -n "$warned" ] && [ "$status" -ne 0 ] && [ "$status" -ne 2 ]; then
    echo "warned of the end: saved, and back into the queue"
    scontrol requeue "$this"
fi
[ "$status" -eq 2 ] && scancel "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}"  # bad input: the other jobs would fail the same
exit "$status"
"""


def start(order: Order) -> int:
    """Submit, and return. Nothing stays behind on this machine."""
    _need("sbatch")
    if not order.left:
        order.say("nothing to do")
        return 0
    flags = _checked_flags(order, _nodes())
    _refuse_another_plan(order)
    submission, script = _write(order, flags)
    try:
        job = _ask("sbatch", "--parsable", str(script)).strip().partition(";")[0]
    except ConfigError:
        shutil.rmtree(submission.folder, ignore_errors=True)
        raise
    order.say(
        f"submitted: job {job}, {flags['array']} of {len(order.left)} runs; its script and output: {script.parent}"
    )
    for option, what in (("--status", "how far it is"), ("--cancel", "end it")):
        order.say(f"{what}: {order.again} {option}")
    return 0


def render(order: Order, to: str) -> int:
    """Print the job script. It is also a file of the results folder, from where sbatch takes it."""
    if to:
        raise ConfigError(f"--engine slurm --render prints the script; drop {to!r}")
    try:
        nodes = _nodes()
    except ConfigError as error:
        order.say(f"not checked against a cluster: {error}")
        nodes = []
    flags = _checked_flags(order, nodes) if nodes else _flags(order, [])
    _, script = _write(order, flags)
    print(script.read_text(encoding="utf-8"), end="")
    order.say(f"submit it with: sbatch {script}")
    return 0


def status(order: Order) -> int:
    """Say what of this study waits and runs."""
    _need("squeue")
    jobs = _queue(order, "--states=all")
    counts = Counter(state for _, state, _, _ in jobs)
    order.say("jobs: " + (", ".join(f"{n} {state.lower()}" for state, n in counts.items()) or "none in the queue"))
    reasons = Counter(reason for _, state, reason, _ in jobs if state == "PENDING" and reason != "None")
    for reason, n in reasons.items():
        order.say(f"  {n} pending: {reason}")
    told = dict.fromkeys(comment for _, _, _, comment in jobs if comment.startswith("error:"))
    stopped = [folder / "stopped" for folder in _submissions(order)]
    for text in (*told, *(f"error: {path.read_text(encoding='utf-8').strip()}" for path in stopped if path.exists())):
        order.say(text)
    return 0


def cancel(order: Order) -> int:
    """End the jobs of this study; their runs save first, as far as Slurm's KillWait allows."""
    _need("scancel")
    jobs = [job for job, _, _, _ in _queue(order)]
    for whole in dict.fromkeys(job.partition("_")[0] for job in jobs):  # an array in one call: it may have 1,000 jobs
        _ask("scancel", whole)
    order.say(f"cancelled: {count(len(jobs), 'job')}")
    return 0


# ---- what is asked for


def _checked_flags(order: Order, nodes: list["_Node"]) -> dict:
    """The flags of sbatch. ConfigError where no node of the cluster has what they ask for."""
    wanted = str(order.cluster.slurm.get("partition") or "")
    known = list(dict.fromkeys(node.partition for node in nodes))
    for name in filter(None, wanted.split(",")):
        if name not in known:
            has = f"{', '.join(known) or 'none'}{nearest(name, known)}"
            raise ConfigError(f"slurm.partition: {name!r} does not exist; there are: {has}")
    chosen = [n for n in nodes if n.partition in wanted.split(",")] if wanted else [n for n in nodes if n.default]
    flags = _flags(order, chosen or nodes)
    _check_gpus(flags, chosen or nodes)
    for flag, most, unit in (
        ("cpus-per-task", max((n.cores for n in chosen), default=0), "cores"),
        ("mem", max((n.mib for n in chosen), default=0), "MiB"),
    ):
        asked = re.fullmatch(r"(\d+)M?", str(flags.get(flag, "")))
        if asked and most and int(asked[1]) > most:
            key_ = {"cores": "cores_per_run", "MiB": "memory_per_run"}[unit]
            raise ConfigError(
                f"a job needs {asked[1]} {unit} ({order.runs_per_job} runs), and the largest node has {most}: give a "
                f"smaller {key_} or runs_per_job, or another slurm.partition"
            )
    return flags


def _flags(order: Order, nodes: list["_Node"]) -> dict:
    """{flag: value}; what cluster.yaml says under `slurm` replaces what is derived."""
    tasks = math.ceil(len(order.left) / order.runs_per_job)
    tasks = max(1, min(tasks, order.cluster.jobs or tasks, MOST_TASKS))
    flags = {"array": f"0-{tasks - 1}", "cpus-per-task": order.cores_per_run * order.runs_per_job}
    if gib := order.memory_per_job("cuda" if order.gpus_per_job else "cpu"):
        flags["mem"] = f"{math.ceil(gib * 1024)}M"
    if seconds := _seconds(order, tasks, nodes):
        flags["time"] = str(math.ceil(seconds / 60))  # minutes
    if order.gpus_per_job:
        kind = f"{order.cluster.gpu_type}:" if order.cluster.gpu_type else ""
        flags["gres"] = f"gpu:{kind}{order.gpus_per_job}"
    own = order.cluster.slurm
    if own.keys() & {"gpus", "gpus-per-node", "gpus-per-task"}:
        flags.pop("gres", None)
    if own.keys() & {"mem-per-cpu", "mem-per-gpu"}:
        flags.pop("mem", None)
    return flags | own


def _seconds(order: Order, tasks: int, nodes: list["_Node"]) -> float | None:
    """Time limit of a job, or None for the partition's."""
    if order.cluster.hours:
        return order.cluster.hours * 3600
    estimate = Estimate(order.samples)
    times = [estimate(run) for run in order.left]
    if not times or any(time is None for time in times):
        order.say("time: no run is complete to go by; give hours, or the partition's limit applies")
        return None
    one_after_another = math.ceil(len(order.left) / (tasks * order.runs_per_job))
    seconds = SPARE * one_after_another * max(time or 0.0 for time in times) + order.warning_seconds + 600
    limits = [node.seconds for node in nodes if node.seconds is not None]
    if limits and len(limits) == len(nodes):
        seconds = min(seconds, max(limits))  # a run that is cut off goes on in the next job
    order.say(f"time: {duration(seconds)} a job, from the pace of runs that are complete (hours)")
    return seconds


# ---- what the cluster has


class _Node:
    """A node in a partition. gpus: [(kind, how many)]. seconds: the partition's limit, None for none."""

    def __init__(self, line: str):
        name, gres, limit, cores, mib = line.split("|")
        self.partition, self.default = name.rstrip("*"), name.endswith("*")
        self.gpus = gpus(gres)
        self.seconds = _limit(limit)
        self.cores, self.mib = int(cores), int(mib)


def gpus(gres: str) -> list[tuple[str, int]]:
    """[(kind or an empty text, how many)] of gpu:a100:4(S:0-1),gpu:2."""
    found = re.finditer(r"(?:^|,)gpu(?::([A-Za-z][^:,(]*))?(?::(\d+))?", gres)
    return [(match[1] or "", int(match[2] or 1)) for match in found]


def _limit(text: str) -> float | None:
    """Seconds of 1-02:03:04, 02:03:04 or 03:04; None for what is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def _nodes() -> list[_Node]:
    """Of all partitions. ConfigError where there is no cluster."""
    _need("sinfo")
    return [_Node(line) for line in _ask("sinfo", "-h", "-N", "-o", "%P|%G|%l|%c|%m").splitlines()]


def _check_gpus(flags: dict, nodes: list[_Node]) -> None:
    kinds = sorted({kind for node in nodes for kind, _ in node.gpus if kind})
    most = max((n for node in nodes for _, n in node.gpus), default=0)
    asked = gpus(str(flags.get("gres", "")))
    for flag in ("gpus", "gpus-per-node", "gpus-per-task"):
        asked += gpus(f"gpu:{flags[flag]}") if flag in flags else []
    for kind, n in asked:
        if not most:
            raise ConfigError(f"{n} GPUs a job are asked for, and no node of the partition has one, says `sinfo`")
        if kind and kind not in kinds:
            has = ", ".join(kinds) or "GPUs without a kind: leave gpu_type out"
            raise ConfigError(f"GPU type {kind!r} is unknown; the partition has: {has}{nearest(kind, kinds)}")
        of_kind = max((n for node in nodes for k, n in node.gpus if not kind or k == kind), default=0)
        if n > of_kind:
            raise ConfigError(
                f"{n} GPUs a job are asked for, and no node has more than {of_kind}: give gpus_per_run less"
            )


def _need(program: str) -> None:
    if not shutil.which(program):
        raise ConfigError(
            f"--engine slurm: {program} is not installed here; go to a machine of the cluster that submits jobs, or "
            f"install Slurm with: {INSTALL}; --render prints the job script without it"
        )


def _ask(*words: str) -> str:
    """The output of a program of Slurm. ConfigError with what it said where it fails."""
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"--engine slurm: {words[0]}: {error}") from error
    if run.returncode:
        lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line.strip()) for line in run.stderr.splitlines()]
        said = "; ".join(filter(None, lines))
        hint = "; is there a cluster? `sinfo` must work here" if words[0] == "sinfo" else ""
        raise ConfigError(f"--engine slurm: {words[0]} refused: {said or f'exit status {run.returncode}'}{hint}")
    return run.stdout


# ---- the script, and what was submitted


def _write(order: Order, flags: dict) -> tuple[Submission, Path]:
    submission = Submission.make(order)
    script = submission.folder / "job.sh"
    try:
        script.write_text(script_of(submission, flags), encoding="utf-8")
    except OSError as error:
        raise unwritable(script, error) from error
    return submission, script


def script_of(submission: Submission, flags: dict) -> str:
    """The job script. flags: of sbatch, beside those that it needs to come back."""
    order = submission.order
    flags = {
        "job-name": submission.id,
        "requeue": True,
        "open-mode": "append",
        "output": "/dev/null",  # the script writes beside the results, once it has seen that they are there
        "signal": f"B:USR2@{order.warning_seconds}",
    } | flags
    lines = [
        f"#SBATCH --{name}" + ("" if value is True else f"={shlex.quote(str(value))}")
        for name, value in flags.items()
        if value is not False
    ]
    results = submission.results
    not_shared = (
        f"error: the results folder {results} is not there: the nodes do not share it with the machine that submitted; "
        "give --results DIR on a shared file system"
    )
    return SCRIPT.format(
        script=submission.folder / "job.sh",
        flags="\n".join(lines),
        folder=shlex.quote(str(submission.folder)),
        looks=SHARED_SECONDS,
        not_shared=shlex.quote(not_shared),
        warning=order.warning_seconds,
        command=" ".join(_contained(submission)),
    )


def _contained(submission: Submission) -> list[str]:
    """The quoted words of the command, in a container where one is asked for."""
    order, box = submission.order, submission.order.cluster.container
    if not box.image:
        return [shlex.quote(word) for word in submission.command()]
    inside = submission.command(python=order.cluster.python or "python", program=f"{box.folder}/src/sweep.py")
    results = str(submission.results)
    if box.by == "srun":
        mounts = ",".join(filter(None, [f"{results}:{results}", box.mounts]))
        outside = [
            "srun",
            f"--container-image={box.image}",
            f"--container-mounts={mounts}",
            f"--container-workdir={box.folder}",
        ]
    else:
        outside = ["apptainer", "exec", *(["--nv"] if order.gpus_per_job else [])]
        outside += ["--bind", ",".join(filter(None, [results, box.mounts])), "--pwd", box.folder, box.image]
    return [shlex.quote(word) for word in (*outside, *inside)]


def _submissions(order: Order) -> list[Path]:
    """The folders of what was submitted to Slurm for this results folder."""
    return sorted(path.parent for path in Path(order.plan.results, FOLDER).glob("*/job.sh"))


def _queue(order: Order, *more: str) -> list[tuple[str, str, str, str]]:
    """(job, state, reason, comment) of each job of this study that Slurm knows."""
    names = [folder.name for folder in _submissions(order)]
    if not names:
        return []
    lines = _ask("squeue", "-h", "-r", *more, f"--name={','.join(names)}", "-o", "%i|%T|%r|%k").splitlines()
    return [(job, state, reason, comment) for job, state, reason, comment in (line.split("|", 3) for line in lines)]


def _refuse_another_plan(order: Order) -> None:
    """ConfigError where jobs wait or run that were submitted with other settings of the same runs."""
    names = set(_names_in_queue(order))
    for folder in _submissions(order):
        if folder.name not in names:
            continue
        try:
            theirs = read_json(folder / "submission.json")["runs"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        changed = [run for run in order.runs if theirs.get(str(run), identity(run.values)) != identity(run.values)]
        if changed:
            raise ConfigError(
                f"the study changed while it runs: jobs named {folder.name} are in the queue with other settings of "
                f"{changed[0]}; end them first ({order.again} --cancel), or give --results DIR"
            )


def _names_in_queue(order: Order) -> Iterable[str]:
    names = [folder.name for folder in _submissions(order)]
    return _ask("squeue", "-h", f"--name={','.join(names)}", "-o", "%j").split() if names else []
