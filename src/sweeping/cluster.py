"""cluster.yaml: what a study's runs need of the machines that they run on. Read and checked like any configuration."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeping.cards import check_share
from utils.args import ConfigError, convert, declared, key, nearest
from utils.config import parse_overrides
from utils.config_files import FOLDER
from utils.messages import shown
from utils.yaml_file import read_yaml

ENGINES = ("local", "slurm", "ray", "k8s")
FILE = "cluster.yaml"
DEFAULTS = FOLDER / FILE


@dataclass(frozen=True)
class Container:
    """The image that Slurm's jobs run in."""

    image: str | None = key("image as the container program names it; null: no container")
    by: str = key("what starts it: srun (pyxis, --container-image) or apptainer", choices=("srun", "apptainer"))
    mounts: str = key("more mounts beside the results folder, SOURCE:TARGET,...")
    folder: str = key("where the program lies in the image")


@dataclass(frozen=True)
class Ray:
    """Where Ray is."""

    address: str | None = key("of the cluster, host:6379, or auto; null: a Ray on this machine, for the sweep")


@dataclass(frozen=True)
class Kubernetes:
    """What the Jobs of Kubernetes name."""

    image: str | None = key("container image")
    namespace: str | None = key("namespace; null: that of kubectl")
    volume: str | None = key("PersistentVolumeClaim that holds the results")
    results: str = key("where that volume is mounted in a pod; the results folder is below it")
    folder: str = key("where the program lies in the image")
    secret: str | None = key("Secret whose entry `password` is MongoDB's; null: none")
    gpu_resource: str = key("name of a GPU as a resource")
    node_selector: dict = key("labels of the nodes, {LABEL: VALUE}")
    grace_seconds: int | None = key(
        "from the eviction of a pod to its end; null: as warning_seconds", low=1, high=1_000_000
    )
    retries_per_index: int = key("how often a pod that failed is started again", low=0, high=1000)
    ray_image: str | None = key("image for runner=ray, with ray in it; null: `image`")
    ray_version: str | None = key("version of ray in it; null: KubeRay finds out")
    ray_workers: int = key("pods beside the head, for runner=ray", low=0, high=100_000)


@dataclass(frozen=True)
class Cluster:
    """What a run needs, and where it gets it. `slurm` holds any flag of sbatch: {partition: gpu, exclusive: true}."""

    engine: str = key("who runs the study", choices=ENGINES)
    jobs: int | None = key("jobs at a time; null: as many as the cluster gives", low=1, high=1_000_000)
    runs_per_job: int | None = key(
        "runs side by side in one job; null: as many as share a GPU, else one", low=1, high=1000
    )
    gpus_per_run: float | None = key(
        "GPUs of a run: 0.25 puts four runs on one; 0: none; null: locally shared out, else none", low=0
    )
    gpu_type: str | None = key("kind of GPU, as Slurm's gres names it")
    cores_per_run: int | None = key(
        "cores of a run; null: num_threads, and one for each environment process", low=1, high=100_000
    )
    memory_per_run: float | None = key(
        "main memory of a run; null: from its replay", unit="GiB", above=0, high=1_000_000
    )
    hours: float | None = key(
        "time limit of a job; null: from the pace of runs that are complete", above=0, high=10_000
    )
    warning_seconds: int | None = key(
        "from the warning to the end of a job, for a round and the state; null: the runs' stop_seconds and a minute",
        low=10,
        high=100_000,
    )
    python: str | None = key("Python on the nodes; null: this one, or `python` in a container")
    slurm: dict = key("flags of sbatch, {FLAG: VALUE}")
    container: Container = key("a section")
    ray: Ray = key("a section")
    k8s: Kubernetes = key("a section")


SECTIONS: dict[str, Any] = {"container": Container, "ray": Ray, "k8s": Kubernetes}


def read_cluster(
    study: Path, path: str | None, words: list[str], flags: dict[str, Any], sbatch: str | None = None
) -> Cluster:
    """The Cluster of a file: `path`, or, where None, cluster.yaml beside the study, if there is one.

    words: KEY=VALUE with dotted keys, which replace the file's. flags: {key: value} that replace both, where
    they are not None. sbatch: flags of sbatch as a shell has them. ConfigError with every problem.
    """
    beside = study.parent / FILE
    source = Path(path) if path else beside if beside.is_file() else None
    raw = {}
    if source is not None:
        raw = read_yaml(source)
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            raise ConfigError(f"{source} holds {type(raw).__name__}, not `key: value` lines")
    merged = _merged(read_yaml(DEFAULTS), raw)
    _checked(merged, str(source))  # by itself, so that the place of a problem is known
    given = {name: value for name, value in flags.items() if value is not None}
    where = [*(["--set"] if words else []), *(f"--{name.replace('_', '-')}" for name in given)]
    for name, value in (parse_overrides(words) | given | _flags_of_sbatch(sbatch)).items():
        for part in reversed(name.split(".")):
            value = {part: value}
        merged = _merged(merged, value)
    values = _checked(merged, ", ".join([*where, *(["--sbatch"] if sbatch else [])]))
    values["slurm"] = {str(name).lstrip("-"): value for name, value in values["slurm"].items()}
    cluster = Cluster(**values)
    if cluster.gpus_per_run:
        check_share(cluster.gpus_per_run, "gpus_per_run")
    return cluster


def _checked(merged: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of a Cluster. ConfigError with every problem; where: who gave them."""
    problems: list[str] = []
    values = _read(Cluster, merged, "", problems)
    if problems:
        raise ConfigError(f"{where}:\n  " + "\n  ".join(problems))
    return values


def _merged(lower: Any, upper: Any) -> Any:
    """A mapping with the values of `upper` in place of those of `lower`, section by section."""
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return lower if upper is None and isinstance(lower, dict) else upper
    return lower | {str(name): _merged(lower.get(str(name)), value) for name, value in upper.items()}


def _read(cls: Any, raw: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """The values that a mapping has for the keys of a dataclass. Adds to `problems`."""
    if not isinstance(raw, dict):
        problems.append(f"{where.rstrip('.')}: {shown(raw)} must be a mapping, {{KEY: VALUE}}")
        return {}
    known, values = declared(cls), {}
    for name, value in raw.items():
        name = str(name)
        if name not in known:
            problems.append(f"unknown key {shown(where + name)}; known: {', '.join(known)}{nearest(name, known)}")
        elif name in SECTIONS and cls is Cluster:
            inner = _read(SECTIONS[name], value, f"{name}.", problems)
            if len(inner) == len(declared(SECTIONS[name])):
                values[name] = SECTIONS[name](**inner)
        else:
            try:
                values[name] = convert(value, *known[name])
                _one_line(values[name])
            except ValueError as error:
                problems.append(f"{where}{name}: {shown(value)} {error}")
    if cls is Cluster:
        problems += _wrong_flags(values.get("slurm", {}))
    return values


def _one_line(value: Any) -> None:
    """ValueError for what is not text of one line, a number, true or false; or a mapping of these."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must be text of one line")
    for name, inner in value.items() if isinstance(value, dict) else ():
        if not isinstance(name, str) or not isinstance(inner, (str, int, float)):
            raise ValueError("must have text as keys, and text, a number, true or false as values")
        _one_line(inner)


def _flags_of_sbatch(text: str | None) -> dict[str, Any]:
    """{slurm.NAME: value} of `--name=value --name`."""
    try:
        words = shlex.split(text or "")
    except ValueError as error:
        raise ConfigError(f"--sbatch: {shown(text)} cannot be read: {error}") from error
    flags: dict[str, Any] = {}
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ConfigError(f"--sbatch: {shown(word)} is no flag; write --name=value or --name, not -p gpu")
        flags[f"slurm.{name}"] = value if "=" in word else True
    return flags


def _wrong_flags(flags: dict) -> list[str]:
    """Problems of sbatch's flags: what this program sets itself, and values that are no flag's."""
    ours = {"array": "jobs", "signal": "warning_seconds", "requeue": "", "open-mode": "", "output": "", "job-name": ""}
    problems = []
    for name, value in flags.items():
        if not re.fullmatch(r"(--)?[A-Za-z][\w-]*", str(name), re.ASCII):
            problems.append(f"slurm: {shown(name)} is no flag of sbatch; write {{partition: gpu, exclusive: true}}")
        elif len(str(name).lstrip("-")) == 1:
            problems.append(f"slurm: {shown(name)}: write the flag's long name: partition, not p")
        elif str(name).lstrip("-") in ours:
            hint = ours[str(name).lstrip("-")]
            problems.append(f"slurm.{name}: is set by the sweep" + (f"; give {hint}" if hint else ""))
        elif not isinstance(value, (str, int, float, bool)):
            problems.append(f"slurm.{name}: {shown(value)} must be text, a number, or true for a flag without a value")
    return problems
