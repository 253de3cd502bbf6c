"""What is sent to a cluster: a folder beside the results, and the command that each job runs.

RESULTS/submissions/<id>/{submission.json, STUDY.yaml, modules/, configurations/, job.sh, stopped}

Each job runs `sweep.py` itself on the copy of the study: it claims runs and works on them until none is left to begin.
So an engine only has to start that command in as many places as it likes, and again where it was cut off.
"""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from sweeping.cards import no_gpu, visible
from sweeping.cluster import Cluster
from sweeping.plan import Plan, PlannedRun
from sweeping.study import CONFIGURATIONS
from utils.args import ConfigError
from utils.config_files import is_path
from utils.identity import MACHINE, identity
from utils.messages import unwritable
from utils.runs import read_json
from utils.yaml_file import read_yaml

FOLDER = "submissions"
PROGRAM_GIB = {"cpu": 1.0, "cuda": 4.0}  # of a run's process: Python, torch, and CUDA's host memory
SPARE = 1.25  # of what is estimated
SWEEP = Path(__file__).resolve().parents[1] / "sweep.py"


@dataclass
class Order:
    """What an engine is asked to do. runs: those selected; left: of these, what is not complete.

    samples: of an Estimate, from runs that are complete. memory(run, device): GiB of main memory that a run takes, or
    None where that is not known. say(text): tells the user. again, report: command lines that go on, and that report.
    """

    study: Path
    plan: Plan
    runs: list[PlannedRun]
    left: list[PlannedRun]
    cluster: Cluster
    retries: int
    samples: list
    memory: Callable[[PlannedRun, str], float | None]
    say: Callable[[str], None]
    again: str
    report: str

    @property
    def runs_per_job(self) -> int:
        share = self.cluster.gpus_per_run or 1
        return self.cluster.runs_per_job or (round(1 / share) if share < 1 else 1)

    @property
    def gpus_per_job(self) -> int:
        share = self.cluster.gpus_per_run or 0
        if 0 < share < 1:
            return math.ceil(self.runs_per_job / round(1 / share))  # 0.167 is a sixth
        return round(share) * self.runs_per_job

    @property
    def cores_per_run(self) -> int:
        if self.cluster.cores_per_run:
            return self.cluster.cores_per_run
        values = [run.values for run in self.left]
        return max(
            (
                v["num_threads"] + (v["batch_size_run"] if v["env_workers"] or v["runner"] == "ray" else 0)
                for v in values
            ),
            default=1,
        )

    @property
    def warning_seconds(self) -> int:
        """That runs need to end a round and to save."""
        longest = max((run.values["stop_seconds"] for run in self.runs), default=0)
        return self.cluster.warning_seconds or int(longest) + 60

    def memory_per_job(self, device: str) -> float | None:
        """GiB of main memory, or None where it is not known. device: that the runs learn on."""
        if self.cluster.memory_per_run:
            return self.cluster.memory_per_run * self.runs_per_job
        firsts = {(run.algorithm, run.environment): run for run in self.left}
        needs = {pair: self.memory(run, device) for pair, run in firsts.items()}
        if unknown := [" on ".join(pair) for pair, need in needs.items() if need is None]:
            self.say(
                f"memory: not known of {', '.join(unknown[:3])}, as the game cannot be made here; give memory_per_run, "
                "or the cluster's default applies"
            )
            return None
        each = SPARE * max((need or 0.0 for need in needs.values()), default=0.0) + PROGRAM_GIB[device]
        self.say(f"memory: {each:.1f} GiB a run, from its replay (memory_per_run)")
        return each * self.runs_per_job + 0.5  # of the sweep


@dataclass
class Submission:
    """A study as it was sent. folder: where; id: its name, which the jobs of the cluster have too."""

    folder: Path
    id: str
    order: Order

    @classmethod
    def make(cls, order: Order) -> "Submission":
        """Write the folder. ConfigError where that cannot be done, or a module's name is there twice."""
        order.plan.results.mkdir(parents=True, exist_ok=True)
        results = order.plan.results.resolve()
        stem = re.sub(r"[^\w.-]+", "_", order.study.stem)[:60]
        name = f"{stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
        folder = results / FOLDER / name
        try:
            folder.mkdir(parents=True)
            shutil.copy(order.study, folder / order.study.name)
            copy_files(order.plan.modules, folder / "modules")
            copy_files(order.plan.configurations, folder / CONFIGURATIONS)
            for path in (folder / CONFIGURATIONS).iterdir():
                _extend_beside(path)
            told = {
                "id": name,
                "fingerprint": fingerprint(order.plan),
                "gpus": bool(order.cluster.gpus_per_run) and any(run.values["use_cuda"] for run in order.runs),
                "runs": {str(run): identity(run.values) for run in order.runs},
                "engine": order.cluster.engine,
            }
            (folder / "submission.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise unwritable(folder, error) from error
        return cls(folder, name, order)

    @property
    def results(self) -> Path:
        return self.folder.parent.parent

    def command(
        self, run: PlannedRun | None = None, python: str | None = None, program: str | None = None
    ) -> list[str]:
        """The words of the command that a job runs: work on the study until no run is left to begin.

        run: only this one. python, program: on the node, in place of this Python and this sweep.py. Its exit status:
        0 done; 1 a run failed; 2 the whole study has to stop, the message says why; 143 cut off, and saved.
        """
        order = self.order
        # run: its labels and seed select it, whatever else was asked for.
        chosen = [run] if run else order.runs
        words = [python or order.cluster.python or sys.executable, program or str(SWEEP)]
        words += [
            str(self.folder / self.order.study.name),
            "--submission",
            str(self.folder),
            "--results",
            str(self.results),
        ]
        words += ["--retries", str(order.retries)]
        for option, labels in (
            ("--algorithms", [r.algorithm for r in chosen]),
            ("--environments", [r.environment for r in chosen]),
        ):
            words += [option, *dict.fromkeys(labels)]
        words += ["--seeds", ",".join(map(str, dict.fromkeys(r.seed for r in chosen)))]
        words += ["--workers", "1" if run else str(order.runs_per_job)]
        if order.gpus_per_job and not run:
            words += ["--gpus-per-run", f"{order.cluster.gpus_per_run:g}"]
        return words


@dataclass
class Received:
    """A submission, as one of its jobs sees it. Made by `receive`."""

    folder: Path
    id: str
    engine: str = ""

    def place(self, runs: list[PlannedRun]) -> None:
        """Set what the place of a job decides: the pods of a RayJob are a Ray cluster, in which runner=ray plays,
        whatever address the study names."""
        for run in runs:
            if self.engine == "k8s" and run.values["runner"] == "ray":
                run.overrides, run.values = ({**keys, "ray_address": "auto"} for keys in (run.overrides, run.values))

    def stop(self, message: str) -> ConfigError:
        """The ConfigError that ends this job, and every other one of the study with the same message."""
        with suppress(OSError):
            (self.folder / "stopped").write_text(message + "\n", encoding="utf-8")
        return ConfigError(message)


def receive(folder: Path, plan: Plan) -> Received:
    """What the first look of a job finds. ConfigError where the whole study has to stop: what is told in
    `submissions/<id>/stopped` by another job, GPUs that this node's Python cannot use, a study that has changed."""
    try:
        told = read_json(folder / "submission.json")
        received = Received(folder, str(told["id"]), str(told.get("engine")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"--submission {folder}: is not a submission, or this node cannot see the folder: {error}"
        raise ConfigError(message) from error
    with suppress(OSError):
        raise ConfigError((folder / "stopped").read_text(encoding="utf-8").strip())
    if told.get("gpus") and not visible():
        host = os.uname().nodename
        raise received.stop(f"node {host}: GPUs were asked for (gpus_per_run), but {no_gpu()}; the study stops")
    if told.get("fingerprint") != fingerprint(plan):
        raise received.stop(
            "the study changed while it runs: the settings of its runs are others than when it was submitted (the "
            "program or src/config was changed); submit it again"
        )
    return received


def fingerprint(plan: Plan) -> str:
    """Of the settings of all runs."""
    lines = sorted(identity(run.values, also=MACHINE) for run in plan.runs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def copy_files(paths: list[Path], folder: Path) -> None:
    """Files, and folders of Python. ConfigError where two have one name."""
    folder.mkdir()
    for path in paths:
        if (folder / path.name).exists():
            raise ConfigError(f"{folder.name}: {path.name} is there twice; rename one")
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder / path.name)


def _extend_beside(path: Path) -> None:
    """Let the copy of a user's YAML file extend the copy beside it: it has left the folder that its `extends` means."""
    values = read_yaml(path)
    if isinstance(values, dict) and is_path(values.get("extends")):
        values["extends"] = Path(values["extends"]).name
        path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
