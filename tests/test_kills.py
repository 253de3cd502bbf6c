"""A run that is killed (SIGKILL) at any moment, and resumed, ends as one that never stopped: `tests/killed.py` kills.

Each case is an algorithm on an environment with settings and kills drawn from its seed. `KILLS_SEED=n` moves all seeds.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from command import ROOT, words

from utils.config_files import names

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


class Moment(NamedTuple):
    """The `number`-th event of this phase and kind; None: of all."""

    phase: str | None
    kind: str | None
    number: int


NEVER = Moment(None, None, -1)


@dataclass
class Case:
    """What is run, and how it is killed."""

    alg: str
    env: str
    seed: int
    workers: bool = False
    staleness: int = 0

    def __str__(self):
        return f"{self.alg}-{self.env}{'-workers' if self.workers else ''}-{self.seed}" + "-stale" * self.staleness

    @property
    def values(self) -> list[str]:
        """The settings of `with`, but for the folder."""
        steps, short = SHORT[self.env]
        rounds = ROUNDS | VARIANTS[self.seed % len(VARIANTS)]
        values = {k: v * steps if k in IN_ROUNDS else v for k, v in rounds.items()}
        values |= {"t_max": (9 + self.seed % 3) * steps - 1, "epsilon_anneal_time": 5 * steps}
        values = {"batch_steps": None} | values | {"buffer_size": 8, "seed": self.seed, "env_workers": self.workers}
        values |= {"max_staleness": self.staleness}
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

    def replaced(self, name: str) -> bool:
        """Whether it had the file replaced when it began, as a resumed run."""
        kind = f"replace {name}"
        return kind in self.passed.get("resume", ()) and self.killed != ["resume", kind]


class Killer:
    """Starts attempts: forks of one process, or (alone) a process for each."""

    def __init__(self, folder: Path, alone: bool = False):
        quiet = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.env, self.server = {**os.environ, **quiet}, None
        self.folder, self.straights = folder, {}
        folder.mkdir(exist_ok=True)
        if not alone:
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.server = subprocess.Popen(PROGRAM, env=self.env, **pipes)

    def straight(self, case: Case) -> tuple[Attempt, dict]:
        """(a run of the case that never stops, all of it that counts). Once for each case."""
        if str(case) not in self.straights:
            folder = self.folder / str(case)
            done = self.attempt(case, folder)
            assert done.code == 0, f"{case}: {done.out}"
            self.straights[str(case)] = done, _all_that_counts(folder, Story(case))
        return self.straights[str(case)]

    def attempt(self, case: Case, folder: Path, moment: Moment = NEVER) -> Attempt:
        report = folder.with_name(folder.name + ".report")
        report.unlink(missing_ok=True)
        argv = ["--resume=latest", *map(str, words(case.alg, case.env, folder, *case.values))]
        order = {**moment._asdict(), "argv": argv, "folder": str(folder), "report": str(report)}
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
    kills: list = field(default_factory=list)  # (Moment, [phase, kind])
    resumed: int = 0  # attempts that wrote so into the summary
    beyond: set = field(default_factory=set)  # lines that were cut off metrics.jsonl
    position: int = 0  # in metrics.jsonl, of the newest state
    out: str = ""

    def __str__(self):
        kills = "".join(f"\n  event {m.number} of {m.phase or 'all'}, {what}" for m, what in self.kills)
        return f"{self.case} (KILLS_SEED={SEED}), killed at{kills}\nThe last process said:\n{self.out[-2000:]}"


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    made = Killer(tmp_path_factory.mktemp("straight"))
    yield made
    made.close()


def check(killer: Killer, case: Case, folder: Path, next_moment: Callable[[list], Moment]) -> Story:
    """A run that is killed again and again must end as one that never stops. next_moment: of the kills so far."""
    expected, story = killer.straight(case)[1], Story(case)
    _kill_and_resume(killer, story, folder, next_moment)
    found = _all_that_counts(folder, story)
    assert found.keys() == expected.keys(), str(story)
    for name in expected:
        assert found[name] == expected[name], f"{name} differs: {story}"
    _check_what_is_left(_run_directory(folder, story), story)
    return story


def _kill_and_resume(killer: Killer, story: Story, folder: Path, next_moment: Callable[[list], Moment]) -> None:
    pending = set()  # lines that the next cut takes off
    while True:
        moment = next_moment(story.kills)
        done = killer.attempt(story.case, folder, moment)
        story.out = done.out
        if done.replaced("metrics.jsonl"):
            story.beyond |= pending
        story.resumed += done.replaced("summary.json")
        if done.killed is None:
            assert done.code == 0, str(story)
            return
        assert done.code == -9, str(story)
        story.kills.append((moment, done.killed))
        for run in folder.glob(f"{story.case.alg}/*/seed*"):
            pending = set(_lines(run / "metrics.jsonl", _position(run)))
            _check_state(run, done, story)


def at_random(killer: Killer, case: Case, most: int = MOST) -> Callable[[list], Moment]:
    """Moments drawn from the case: one time in four any event, else one of a phase, each as likely as the next. Of
    later processes the earlier ones, or they would end before."""
    rng, straight = random.Random(str(case)), killer.straight(case)[0]
    counts = {phase: straight.count(phase) for phase in PHASES} | {"resume": RESUME}

    def next_moment(kills: list) -> Moment:
        if len(kills) == most:
            return NEVER
        phase = rng.choice([phase for phase in PHASES if phase != ("resume" if not kills else "start")])
        phase = None if rng.random() < 0.25 else phase
        last = sum(counts.values()) - RESUME if phase is None else counts[phase]
        whole = not kills or phase in ("resume", "closing")
        return Moment(phase, None, rng.randint(1, max(1, last if whole else last // 2)))

    return next_moment


def _lines(path: Path, position: int = 0) -> list[bytes]:
    return path.read_bytes()[position:].splitlines() if path.exists() else []


def _manifests(run: Path) -> list[dict]:
    """The newest last."""
    texts = [path.read_text() for path in (run / "state").glob("manifest.*.json")]
    return sorted((json.loads(text)["manifest"] for text in texts), key=lambda m: m["number"])


def _position(run: Path) -> int:
    """Where the newest state stands in metrics.jsonl."""
    return max((manifest["metrics"] for manifest in _manifests(run)), default=0)


def _check_state(run: Path, done: Attempt, story: Story) -> None:
    """What a kill leaves in state/: no older state than before; two manifests at most; what they do not name only in
    the midst of a state."""
    assert _position(run) >= story.position, f"a state is lost: {story}"
    story.position = _position(run)
    manifests, phase = _manifests(run), done.killed[0]
    assert len(manifests) <= 2, str(story)
    kinds = done.passed["closing" if phase == "closing" else "state"]
    whole = all(kinds.get(f"begin {what}") == kinds.get(f"end {what}") for what in ("state", "finished"))
    if whole and "end state" in kinds:
        named = {f"manifest.{m['number']}.json" for m in manifests} | {m["parts"]["name"] for m in manifests}
        named |= {file["name"] for m in manifests for file in m["replay"] or []}
        assert named == {path.name for path in (run / "state").iterdir()}, str(story)


def _run_directory(folder: Path, story: Story) -> Path:
    """The one run directory, and the one entry of Sacred's."""
    (task,) = folder.glob(f"{story.case.alg}/*")
    found = [path for path in task.iterdir() if not path.name.endswith(".partial")]
    assert len(found) == 1, f"{len(found)} run directories, {[path.name for path in found]}: {story}"
    entries = [path.name for path in (folder / "sacred" / story.case.alg / task.name).glob("[!.]*")]
    assert entries == ["1"], f"Sacred's entries {entries}: {story}"
    return found[0]


def _all_that_counts(folder: Path, story: Story) -> dict:
    """{name: what has to be the same}."""
    run = _run_directory(folder, story)
    found = {str(path.relative_to(run)): _bits(torch.load(path)) for path in run.glob("checkpoints/*/*.th")}
    found |= {str(path.relative_to(run)): path.read_text() for path in run.glob("checkpoints/*/meta.json")}
    found |= {path.name: path.read_text() for path in run.glob("tables.json")}
    (parts,) = run.glob("state/parts.*.pt")
    for name, part in torch.load(parts).items():
        found[f"state: {name}"] = None if name in ("wall_s", "seconds") else _bits(part)
    found["facts"] = _manifests(run)[-1]["facts"]
    records = [_without(json.loads(line), "time") for line in _lines(run / "metrics.jsonl")]
    found["metrics.jsonl"] = [record for record in records if not record["key"].startswith("time_")]
    summary = json.loads((run / "summary.json").read_text())
    found["summary.json"] = _without(summary, "resumed", "wall_time_s", "seconds", "env_steps_per_s")
    entry = folder / "sacred" / story.case.alg / run.parent.name / "1"
    series = json.loads((entry / "metrics.json").read_text())
    found["Sacred's metrics.json"] = {
        key: (s["steps"], s["values"]) for key, s in series.items() if not key.startswith("time_")
    }
    found["Sacred's status"] = json.loads((entry / "run.json").read_text())["status"]
    assert summary["status"] == "finished" and f"checkpoints/{summary['t_env']}/agent.th" in found, str(story)
    assert "checkpoints/best/agent.th" in found, str(story)
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
    assert not [*run.rglob("*.partial*"), *run.rglob("*.old")], str(story)
    assert len(json.loads((run / "summary.json").read_text())["resumed"]) == story.resumed, str(story)
    (manifest,) = _manifests(run)
    left = {path.name for path in (run / "state").iterdir()}
    assert left == {f"manifest.{manifest['number']}.json", manifest["parts"]["name"]}, str(story)
    aside = set(_lines(run / "metrics.superseded.jsonl"))
    halves = {line for line in aside - story.beyond if any(whole.startswith(line) for whole in story.beyond)}
    assert aside - halves == story.beyond, str(story)


# ---- the cases

CASES = [Case(alg, GAMES[(i + i // 4) % 4], 100 * SEED + i) for i, alg in enumerate(ALGORITHMS)]
WORKERS = [
    Case("iql_ns", "matrix_game", 100 * SEED + 50, workers=True),
    Case("qmix", "two_step", 100 * SEED + 51, workers=True, staleness=1),
    Case("qtran_alt", "predator_prey", 100 * SEED + 52, workers=True, staleness=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_killed_run_ends_as_one_that_never_stopped(case, killer, tmp_path):
    check(killer, case, tmp_path / "killed", at_random(killer, case))


@pytest.mark.parametrize("case", WORKERS, ids=str)
def test_so_it_is_with_games_in_processes_of_their_own(case, killer, tmp_path):
    check(killer, case, tmp_path / "killed", at_random(killer, case, most=3))


# Moments that chance may miss, after a first kill in training where they are of a resumed run.
AIMED = {
    "a folder without a claim": Moment("start", "renamed seedN_xTNZ", 1),
    "half a claim": Moment("start", "write .x", 1),
    "no link to the claim": Moment("start", "link N.json", 1),
    "no log yet": Moment("start", "open log.txt", 1),
    "an entry of Sacred's without a name": Moment("start", "open run.json.new", 1),
    "an entry of Sacred's without settings": Moment("start", "replace config.json", 1),
    "half a line of metrics": Moment("round", "write metrics.jsonl", 30),
    "half the networks": Moment("state", "write parts.N.pt.partial", 30),
    "half the episodes": Moment("state", "write replay.N-N.npy.partial", 9),
    "a state without a manifest": Moment("state", "replace manifest.N.json", 2),
    "more files than the manifests name": Moment("state", "unlink manifest.N.json", 2),
    "in the midst of a test": Moment("test", "end step", 2),
    "after a test": Moment("test", "end test", 2),
    "the first best without its name": Moment("checkpoint", "rename best", 1),
    "half of a better one": Moment("checkpoint", "write mixer.th.x.partial", 3),
    "the old best away, the new one not there": Moment("checkpoint", "renamed best.old", 1),
    "the old best beside the new one": Moment("checkpoint", "renamed best", 2),
    "two checkpoints too many": Moment("round", "begin limit_checkpoints", 2),
    "half of metrics.jsonl copied": Moment("resume", "fsync metrics.jsonl.partial", 1),
    "half of what is set aside": Moment("resume", "write metrics.superseded.jsonl", 1),
    "set aside, not yet cut": Moment("resume", "replace metrics.jsonl", 1),
    "the configuration half written": Moment("resume", "write config.yaml.x.partial", 1),
    "Sacred's metrics not yet written": Moment("resume", "end OpenRun", 1),
    "the last state half written": Moment("closing", "write parts.N.pt.partial", 2),
    "the replay half removed": Moment("closing", "unlink replay.N-N.npy", 2),
    "the last state still with its replay": Moment("closing", "begin finished", 1),
    "in the closing test": Moment("closing", "end step", 1),
    "after the closing test": Moment("closing", "end test", 1),
    "the last checkpoint": Moment("closing", "replace opt.th", 1),
    "Sacred's metrics half written": Moment("closing", "write metrics.json.new", 5),
    "a summary not yet written": Moment("closing", "replace summary.json", 1),
    "a claim not yet released": Moment("closing", "replace N.json", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", AIMED)
def test_a_kill_at_the_worst_moment(name, killer, tmp_path):
    first = [Moment("round", "write metrics.jsonl", 62)] if AIMED[name].phase == "resume" else []
    moments = [*first, AIMED[name]]
    case = Case("qmix", "gaussian_squeeze", 20)
    story = check(killer, case, tmp_path / "killed", lambda kills: [*moments, NEVER][len(kills)])
    assert len(story.kills) == len(moments), f"there is no such moment: {story}"


@pytest.mark.gym
@pytest.mark.parametrize("workers", [False, True])
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_level_based_foraging(alg, workers, killer, tmp_path):
    case = Case(alg, "gymma", 200 + SEED + ALGORITHMS.index(alg), workers)
    check(killer, case, tmp_path / "killed", at_random(killer, case))


@pytest.mark.smax
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_smax(alg, tmp_path):
    alone, case = Killer(tmp_path / "straight", alone=True), Case(alg, "smax", 300 + SEED + ALGORITHMS.index(alg))
    check(alone, case, tmp_path / "killed", at_random(alone, case, most=2))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(SWEEP))
def test_a_sweep_at_random(number, killer, tmp_path):
    rng = random.Random(f"{SEED} {number}")
    case = Case(rng.choice(ALGORITHMS), rng.choice(GAMES), rng.randrange(10**6), rng.random() < 0.1)
    check(killer, case, tmp_path / "killed", at_random(killer, case))
