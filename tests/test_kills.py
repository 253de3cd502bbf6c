"""A run that is killed (SIGKILL) at any moment, and resumed, ends as one that never stopped: `tests/killed.py` kills.

Each case is an algorithm on an environment with settings and kills drawn from its seed. `KILLS_SEED=n` moves all seeds.
"""

import collections
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from command import ROOT, words

from utils.config import names

ALGORITHMS = names("algs")
GAMES = ("matrix_game", "two_step", "gaussian_squeeze", "predator_prey")
MOST = 6  # kills of one run
PHASES = ("start", "resume", "round", "test", "state", "checkpoint", "closing")
RESUME = 60  # about as many events has the beginning of a resumed run
SEED = int(os.environ.get("KILLS_SEED", 0))
SWEEP = int(os.environ.get("KILLS_CASES", 100))  # of the slow test, three kills each
PROGRAM = [sys.executable, str(ROOT / "tests" / "killed.py")]
LBF = "lbforaging:Foraging-8x8-2p-3f-v3"

# {game: (steps of a round of two environments, what makes it short)}
SHORT = {
    "matrix_game": (2, []),
    "two_step": (4, []),
    "gaussian_squeeze": (2, []),
    "predator_prey": (12, []),
    "gymma": (12, [f"env_args.key={LBF}", "env_args.time_limit=6"]),
    "smax": (12, ["env_args.episode_limit=6"]),
}
# One of these for each case. Intervals are in rounds.
VARIANTS = (
    dict(resume_interval=1, standardise_rewards=True, td_lambda=0.6, use_rnn=True, obs_last_action=True,
         target_update_interval_or_tau=4, target_update_unit="episodes", double_q=True),
    dict(resume_interval=2, batch_steps=1, use_rnn=False, obs_last_action=False, optimizer="rmsprop", lr_decay_start=4,
         target_update_interval_or_tau=0.1, updates_per_run=2, save_model_interval=3),
    dict(resume_interval=3, use_rnn=True, obs_last_action=False, target_update_interval_or_tau=3, keep_checkpoints=1,
         target_update_unit="updates", double_q=False, runner_log_interval=1, learner_log_interval=1),
    dict(resume_interval=4, use_rnn=True, obs_last_action=True, standardise_rewards=True, td_lambda=0.8,
         target_update_interval_or_tau=0.5, updates_per_run=3, keep_checkpoints=2, test_nepisode=3, log_interval=3),
)  # fmt: skip
ROUNDS = dict(test_interval=3, save_model_interval=4, runner_log_interval=2, learner_log_interval=2)
IN_ROUNDS = {*ROUNDS, "resume_interval", "lr_decay_start", "log_interval"}


@dataclass
class Case:
    """What is run, and how it is killed."""

    alg: str
    env: str
    seed: int
    workers: bool = False

    def __str__(self):
        return f"{self.alg}-{self.env}{'-workers' if self.workers else ''}-{self.seed}"

    @property
    def values(self) -> list[str]:
        """The settings of `with`, but for the folder."""
        steps, short = SHORT[self.env]
        rounds = ROUNDS | VARIANTS[self.seed % len(VARIANTS)]
        values = {k: v * steps if k in IN_ROUNDS else v for k, v in rounds.items()}
        values = {"batch_steps": None} | values | {"t_max": 10 * steps - 1, "buffer_size": 8, "seed": self.seed}
        values |= {"epsilon_anneal_time": 5 * steps, "env_workers": self.workers}
        return [*short, *(f"{k}={v}" for k, v in values.items())]


@dataclass
class Attempt:
    """One process. killed: [phase, kind of event], or None. passed: {phase: {kind: how often}}."""

    code: int
    killed: list | None
    passed: dict
    out: str

    def count(self, phase: str) -> int:
        return sum(self.passed[phase].values())

    def began(self, what: str, part: str = "begin") -> bool:
        return any(f"{part} {what}" in kinds for kinds in self.passed.values())


class Killer:
    """Starts attempts: forks of one process, or (alone) a process for each."""

    def __init__(self, alone: bool = False):
        quiet = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.env, self.server = {**os.environ, **quiet}, None
        if not alone:
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.server = subprocess.Popen(PROGRAM, env=self.env, **pipes)

    def attempt(self, case: Case, folder: Path, phase: str | None = None, number: int = 0) -> Attempt:
        report = folder.with_name(folder.name + ".report")
        report.unlink(missing_ok=True)
        argv = ["--resume=latest", *map(str, words(case.alg, case.env, folder, *case.values))]
        order = {"argv": argv, "phase": phase, "number": number, "folder": str(folder), "report": str(report)}
        code = self._code(json.dumps(order), f"{report}.out")
        found = json.loads(report.read_text()) if report.exists() else {"killed": None, "passed": {}}
        return Attempt(code, **found, out=Path(f"{report}.out").read_text())

    def _code(self, order: str, out: str) -> int:
        if self.server is None:
            with open(out, "w") as file:
                return subprocess.run([*PROGRAM, "once", order], env=self.env, stdout=file, stderr=file).returncode
        self.server.stdin.write(order + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def close(self):
        if self.server is not None:
            self.server.stdin.close()
            self.server.wait()


@dataclass
class Story:
    """What happened to a killed run, as the tests tell it when they fail."""

    case: Case
    kills: list = field(default_factory=list)  # (phase, number, [phase, kind])
    resumed: int = 0  # attempts that wrote so into the summary
    beyond: set = field(default_factory=set)  # lines that were cut off metrics.jsonl
    out: str = ""

    def __str__(self):
        kills = "; ".join(f"event {number} of {phase or 'all'}: {kind}" for phase, number, kind in self.kills)
        return f"{self.case} (KILLS_SEED={SEED}), {len(self.kills)} kills: {kills}\n{self.out[-2000:]}"


@pytest.fixture(scope="module")
def killer():
    made = Killer()
    yield made
    made.close()


def check(killer: Killer, case: Case, tmp_path: Path, most: int = MOST) -> None:
    """One run that never stops, one that is killed again and again, and all that must be the same."""
    straight = killer.attempt(case, tmp_path / "straight")
    assert straight.code == 0, f"{case}: {straight.out}"
    story = Story(case)
    _kill_and_resume(killer, story, tmp_path / "killed", straight, most)
    expected, found = (_all_that_counts(tmp_path / name, case, story) for name in ("straight", "killed"))
    assert found.keys() == expected.keys(), story
    for name in expected:
        assert found[name] == expected[name], f"{name} differs: {story}"
    _check_what_is_left(_run_directory(tmp_path / "killed", case, story), story)


def _kill_and_resume(killer: Killer, story: Story, folder: Path, straight: Attempt, most: int) -> None:
    rng = random.Random(f"{story.case}")
    pending = set()  # lines that the next cut takes off
    while True:
        phase, number = _moment(rng, straight, len(story.kills)) if len(story.kills) < most else (None, 0)
        done = killer.attempt(story.case, folder, phase, number)
        story.out = done.out
        if done.began("cut_metrics", "end"):
            story.beyond |= pending
        summary = "replace summary.json"
        story.resumed += summary in done.passed.get("resume", ()) and done.killed != ["resume", summary]
        if done.killed is None:
            assert done.code == 0, story
            return
        assert done.code == -9, story
        story.kills.append((phase, number, done.killed))
        for run in folder.glob("*/*/seed*"):
            pending = _lines_beyond(run)
            _check_state(run, done, story)


def _moment(rng: random.Random, straight: Attempt, kills: int) -> tuple[str | None, int]:
    """(phase or None, number of its event): one time in four any event, else one of a phase, each as likely as the next;
    of later processes the earlier ones, or they would end before."""
    counts = {phase: straight.count(phase) for phase in PHASES} | {"resume": RESUME}
    phases = [phase for phase in PHASES if phase != ("resume" if kills == 0 else "start")]
    phase = None if rng.random() < 0.25 else rng.choice(phases)
    last = sum(map(straight.count, PHASES)) if phase is None else counts[phase]
    return phase, rng.randint(1, max(1, last if kills == 0 or phase in ("resume", "closing") else last // 2))


def _manifests(run: Path) -> list[dict]:
    """The newest last."""
    texts = [path.read_text() for path in (run / "state").glob("manifest.*.json")]
    return sorted((json.loads(text)["manifest"] for text in texts), key=lambda m: m["number"])


def _lines_beyond(run: Path) -> set[bytes]:
    """The lines of metrics.jsonl behind the newest state."""
    manifests = _manifests(run)
    position, metrics = manifests[-1]["metrics"] if manifests else 0, run / "metrics.jsonl"
    return set(metrics.read_bytes()[position:].splitlines()) if metrics.exists() else set()


def _check_state(run: Path, done: Attempt, story: Story) -> None:
    """What a kill leaves in state/: two manifests at most; what they do not name only in the midst of a state."""
    manifests, phase = _manifests(run), done.killed[0]
    assert len(manifests) <= 2, story
    written = "end state" in done.passed["closing" if phase == "closing" else "state"]
    if written and phase != "state":
        named = {f"manifest.{m['number']}.json" for m in manifests} | {m["parts"]["name"] for m in manifests}
        named |= {file["name"] for m in manifests for file in m["replay"] or []}
        assert named == {path.name for path in (run / "state").iterdir()}, story


def _run_directory(folder: Path, case: Case, story: Story) -> Path:
    """The one run directory, and the one entry of Sacred's."""
    (task,) = folder.glob(f"{case.alg}/*")
    found = list(task.iterdir())
    assert len(found) == 1, f"{len(found)} run directories, {[path.name for path in found]}: {story}"
    entries = [path.name for path in (folder / "sacred" / case.alg / task.name).iterdir()]
    assert entries == ["1"], f"Sacred's entries {entries}: {story}"
    return found[0]


def _all_that_counts(folder: Path, case: Case, story: Story) -> dict:
    """{name: what has to be the same}."""
    run = _run_directory(folder, case, story)
    found = {str(path.relative_to(run)): _bits(torch.load(path)) for path in run.glob("checkpoints/*/*.th")}
    found |= {str(path.relative_to(run)): path.read_text() for path in run.glob("checkpoints/*/meta.json")}
    found |= {path.name: path.read_text() for path in run.glob("tables.json")}
    (parts,) = run.glob("state/parts.*.pt")
    for name, part in torch.load(parts).items():
        found[f"state: {name}"] = None if name == "wall_s" else _bits(part)
    found["facts"] = _manifests(run)[-1]["facts"]
    found["metrics.jsonl"] = [_without(json.loads(line), "time") for line in open(run / "metrics.jsonl")]
    summary = json.loads((run / "summary.json").read_text())
    found["summary.json"] = _without(summary, "resumed", "wall_time_s", "env_steps_per_s")
    entry = folder / "sacred" / case.alg / run.parent.name / "1"
    series = json.loads((entry / "metrics.json").read_text())
    found["Sacred's metrics.json"] = {key: (s["steps"], s["values"]) for key, s in series.items()}
    found["Sacred's status"] = json.loads((entry / "run.json").read_text())["status"]
    assert summary["status"] == "finished" and f"checkpoints/{summary['t_env']}/agent.th" in found, story
    assert "checkpoints/best/agent.th" in found, story
    return found


def _without(fields: dict, *names: str) -> dict:
    return {k: v for k, v in fields.items() if k not in names}


def _bits(value):
    """What was saved, with tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: _bits(v) for k, v in value.items()}
    return [_bits(v) for v in value] if isinstance(value, (list, tuple)) else repr(value)


def _check_what_is_left(run: Path, story: Story) -> None:
    """The traces of the kills: those that stay, and none else."""
    assert not [path for path in run.rglob("*.partial*")], story
    assert len(json.loads((run / "summary.json").read_text())["resumed"]) == story.resumed, story
    (manifest,) = _manifests(run)
    left = {path.name for path in (run / "state").iterdir()}
    assert left == {f"manifest.{manifest['number']}.json", manifest["parts"]["name"]}, story
    aside = run / "metrics.superseded.jsonl"
    cut = set(aside.read_bytes().splitlines()) if aside.exists() else set()
    assert cut == story.beyond, story


# ---- the cases

ONE_EACH = [Case(alg, GAMES[i % 4], 4 * SEED + i // 4 + i) for i, alg in enumerate(ALGORITHMS)]
ANOTHER = [Case(alg, GAMES[(i + 2) % 4], 100 + SEED + i, i % 3 == 0) for i, alg in enumerate(ALGORITHMS)]


@pytest.mark.parametrize("case", ONE_EACH + ANOTHER, ids=str)
def test_a_killed_run_ends_as_one_that_never_stopped(case, killer, tmp_path):
    check(killer, case, tmp_path)
