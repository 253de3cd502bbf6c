"""Kubernetes: YAML for `kubectl apply -f DIR`. kubectl itself is never called.

An Indexed Job, whose pods work on the study until no run is left to begin; for a study with runner=ray, a RayJob of
KubeRay.
"""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from sweeping.plan import folder_name
from sweeping.submission import Order, Submission
from utils.args import ConfigError
from utils.messages import unwritable
from utils.runs import read_bytes

PASSWORD = "/secrets/mongo"  # folder of the pod with the entries of the Secret
STUDY = "/study"  # folder of the pod with the study, what was submitted, and the user's modules
LARGEST = 900_000  # bytes of a ConfigMap, of which etcd takes about a MiB
MOST_NAME = 40  # characters; the pods' names are longer
HELP = "docs/clusters.md shows a cluster.yaml for Kubernetes"


def render(order: Order, to: str) -> int:
    """Write the YAML to the folder `to`."""
    if not to:
        raise ConfigError("--engine k8s --render needs a folder: --render DIR")
    cluster = order.cluster
    missing = [f"k8s.{name}" for name in ("image", "volume") if not getattr(cluster.k8s, name)]
    if missing:
        raise ConfigError(f"--engine k8s: missing key {', '.join(missing)}; {HELP}")
    if not order.left:
        order.say("nothing to do")
        return 0
    rays = [run for run in order.runs if run.values["runner"] == "ray"]
    if rays and len(rays) < len(order.runs):
        raise ConfigError("--engine k8s: some runs have runner=ray and some have not; select them by --algorithms")
    submission = Submission.make(order)
    work = ray_job(submission) if rays else indexed_job(submission)
    folder = Path(to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ("rayjob.yaml" if rays else "job.yaml")
        file.write_text(yaml.safe_dump_all([config_map(submission), work], sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    order.say(f"written: {file}; submit it with: kubectl apply -f {folder}")
    return 0


def name_of(submission: Submission) -> str:
    """A name that Kubernetes takes: small letters, digits and hyphens."""
    stem, stamp, number = submission.id.rsplit("-", 2)
    own = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower())[:MOST_NAME].strip("-")
    return f"{own or 'study'}-{stamp.lower()}-{number}".strip("-")


def config_map(submission: Submission) -> dict[str, Any]:
    """The study, what was submitted, and the user's modules. ConfigError where they are too large."""
    try:
        data = {key: read_bytes(path).decode() for key, path in _files(submission).items()}
    except UnicodeDecodeError as error:
        raise ConfigError("modules: a ConfigMap holds only text, and a file is not: put it into the image") from error
    if sum(len(text.encode()) for text in data.values()) > LARGEST:
        raise ConfigError(
            f"modules: the study and its modules have more than {LARGEST} bytes, and a ConfigMap holds no more: put "
            "the modules into the image"
        )
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(submission), "data": data}


def indexed_job(submission: Submission) -> dict[str, Any]:
    """One pod for each job. A pod that is evicted or loses its node is started again and counts as no failure; one that
    ends with status 2 (bad input, no CUDA) ends the whole Job."""
    order, k8s = submission.order, submission.order.cluster.k8s
    pods = math.ceil(len(order.left) / order.runs_per_job)
    disruption = {"type": "DisruptionTarget", "status": "True"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(submission),
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": min(pods, order.cluster.jobs or pods),
            "backoffLimitPerIndex": k8s.retries_per_index,
            "maxFailedIndexes": pods,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [disruption]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "sweep", "operator": "In", "values": [2]},
                    },
                ]
            },
            "template": {
                "metadata": {"labels": {"app": "qtran-sweep"}},
                "spec": _pod(submission, "sweep", _command(submission), k8s.image) | {"restartPolicy": "Never"},
            },
        },
    }


def ray_job(submission: Submission) -> dict[str, Any]:
    """A Ray cluster for the study: the head runs the learners, one run at a time or as many as share its GPU; the
    workers play. The runs have ray_address=auto (`Received.place`)."""
    k8s = submission.order.cluster.k8s
    image = k8s.ray_image or k8s.image
    head = _pod(submission, "ray-head", None, image)
    worker = _pod(submission, "ray-worker", None, image, gpus=False)
    cluster = {
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": {"spec": head}},
        "workerGroupSpecs": [
            {
                "groupName": "actors",
                "replicas": k8s.ray_workers,
                "minReplicas": k8s.ray_workers,
                "maxReplicas": k8s.ray_workers,
                "rayStartParams": {},
                "template": {"spec": worker},
            }
        ],
    }
    if k8s.ray_version:
        cluster = {"rayVersion": k8s.ray_version} | cluster
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(submission),
        "spec": {
            "entrypoint": shlex.join(_command(submission)),
            "shutdownAfterJobFinishes": True,
            "backoffLimit": k8s.retries_per_index,
            "rayClusterSpec": cluster,
        },
    }


def _command(submission: Submission) -> list[str]:
    """The words that a pod runs: those of a job, with the pod's folders."""
    k8s = submission.order.cluster.k8s
    program = f"{k8s.folder}/src/sweep.py"
    words = submission.command(python=submission.order.cluster.python or "python", program=program)
    here = {
        str(submission.folder / submission.order.study.name): f"{STUDY}/{submission.order.study.name}",
        str(submission.folder): STUDY,
        str(submission.results): f"{k8s.results}/{folder_name(submission.order.study.stem)}",
    }
    return [here.get(word, word) for word in words]


def _pod(
    submission: Submission, name: str, command: list[str] | None, image: str | None, gpus: bool = True
) -> dict[str, Any]:
    """The spec of a pod. command: None for what the image itself, or KubeRay, starts."""
    order, k8s = submission.order, submission.order.cluster.k8s
    items = [{"key": key, "path": str(path.relative_to(submission.folder))} for key, path in _files(submission).items()]
    volumes: list[dict[str, Any]] = [
        {"name": "results", "persistentVolumeClaim": {"claimName": k8s.volume}},
        {"name": "study", "configMap": {"name": name_of(submission), "items": items}},
    ]
    mounts = [{"name": "results", "mountPath": k8s.results}, {"name": "study", "mountPath": STUDY, "readOnly": True}]
    environment = []
    if k8s.secret:
        volumes.append({"name": "mongo", "secret": {"secretName": k8s.secret}})
        mounts.append({"name": "mongo", "mountPath": PASSWORD, "readOnly": True})
        environment.append({"name": "QTRAN_MONGO_PASSWORD_FILE", "value": f"{PASSWORD}/password"})
    container: dict[str, Any] = {"name": name, "image": image}
    if command:
        container |= {"command": command, "workingDir": k8s.folder}
    container |= {"env": environment, "resources": _resources(order, gpus), "volumeMounts": mounts}
    spec: dict[str, Any] = {"containers": [container], "volumes": volumes}
    spec["terminationGracePeriodSeconds"] = k8s.grace_seconds or order.warning_seconds
    if k8s.node_selector:
        spec["nodeSelector"] = {str(label): str(value) for label, value in k8s.node_selector.items()}
    return spec


def _resources(order: Order, gpus: bool) -> dict[str, Any]:
    requests: dict[str, Any] = {"cpu": order.cores_per_run * order.runs_per_job}
    limits: dict[str, Any] = {}
    if gib := order.memory_per_job("cuda" if order.gpus_per_job else "cpu"):
        requests["memory"] = limits["memory"] = f"{math.ceil(gib * 1024)}Mi"
    if gpus and order.gpus_per_job:
        limits[order.cluster.k8s.gpu_resource] = order.gpus_per_job
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _files(submission: Submission) -> dict[str, Path]:
    """{key of the ConfigMap: file}. Keys hold no slash, so folders are joined by two dots."""
    found = {}
    for path in sorted(path for path in submission.folder.rglob("*") if path.is_file()):
        found[re.sub(r"[^\w.-]", "_", "..".join(path.relative_to(submission.folder).parts), flags=re.ASCII)] = path
    return found


def _metadata(submission: Submission) -> dict[str, Any]:
    namespace = submission.order.cluster.k8s.namespace
    return {"name": name_of(submission), **({"namespace": namespace} if namespace else {})}
