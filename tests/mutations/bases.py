"""What is mutated: small runs, made once by the real commands in forks of this process, and files of this project."""

import hashlib
import json
import shutil
from pathlib import Path

import yaml

from mutations import forked
from mutations.forked import WORK, Case

ROOT = Path(__file__).parents[2]
TINY = dict(
    t_max=4, batch_size=2, buffer_size=64, batch_size_run=2, updates_per_run=1, hidden_dim=4, test_nepisode=2,
    test_interval=4, log_interval=1000, runner_log_interval=1, learner_log_interval=1, save_model_interval=4,
    learning_starts=0, use_cuda=False, seed=1,
)  # fmt: skip
TINY_GAMES = {
    "predator_prey": {"env_args.episode_limit": 4, "env_args.map_size": 3},
    "gaussian_squeeze": {"env_args.n_agents": 3},
}
GAMES = ("matrix_game", "two_step", "gaussian_squeeze", "predator_prey")
STATES = dict(t_max=8, resume_interval=4, keep_replay=True, save_model_interval=8)
RUNS = {  # name: (algorithm, environment, keys)
    "alt": ("qtran_alt", "matrix_game", {}),
    "qmix": ("qmix", "two_step", {"use_rnn": True, "td_lambda": 0.5}),
    "iql": (
        "iql_ns",
        "predator_prey",
        {"optimizer": "rmsprop", "use_rnn": False, "obs_last_action": False, "lr_decay_start": None},
    ),
}


def tiny(env: str) -> dict:
    return TINY | TINY_GAMES.get(env, {})


def words(alg: str, env: str, keys: dict) -> list[str]:
    return [f"--config={alg}", f"--env-config={env}", "with", *(f"{k}={v}" for k, v in keys.items())]


class Bases:
    """folder: where they are. runs: {name: run directory}, finished, with checkpoints, states and a replay."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder, {}
        for name, (alg, env, keys) in RUNS.items():
            case = Case("main", words(alg, env, tiny(env) | STATES | keys), training=600)
            end = forked.end_of(case, folder / name)
            assert end.code == 0, end.err
            (self.runs[name],) = {p.parent for p in (folder / name / WORK).glob("results/*/*/*/config.yaml")}
        self.files = {name: self._files(path) for name, path in self.runs.items()}

    def results(self, name: str) -> Path:
        return self.folder / name / WORK / "results"

    def relative(self, name: str) -> Path:
        """The run directory, relative to a working directory."""
        return self.runs[name].relative_to(self.folder / name / WORK)

    def put(self, name: str, work: Path, unfinished: bool = False, longer: int = 8) -> Path:
        """Copy a run and its Sacred entry into a working directory; the run directory. unfinished: as one that was
        killed on its way to another `longer` steps."""
        shutil.copytree(self.results(name), work / "results", dirs_exist_ok=True)
        path = work / self.relative(name)
        if unfinished:
            config = yaml.safe_load((path / "config.yaml").read_text())
            config["t_max"] += longer
            (path / "config.yaml").write_text(yaml.safe_dump(config))
            summary = json.loads((path / "summary.json").read_text())
            (path / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
        return path

    @staticmethod
    def _files(path: Path) -> list[str]:
        """Its files, relative to it."""
        return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def signed(text: str) -> str:
    """A state's manifest with the checksum that goes with it."""
    try:
        whole = json.loads(text)
        manifest = json.dumps(whole["manifest"], sort_keys=True)
    except (ValueError, TypeError, KeyError, RecursionError):
        return text
    return json.dumps({"checksum": hashlib.sha256(manifest.encode()).hexdigest(), "manifest": whole["manifest"]})
