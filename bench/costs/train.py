"""`run.py train`: whole runs, start left out. A run's time is that between two of its rounds (`costs/progress.py`)."""

import os
import tempfile
from dataclasses import dataclass, field

from costs.options import Options, Peer
from costs.ours import PYMARL
from costs.report import Notes, Table, measure
from costs.sides import Job, spread

PEERS = {"steps": "EPyMARL", "samples": "JaxMARL"}  # by what is counted
WHOLE = {"seconds": "wall", "cpu_seconds": "cpu"}  # of a turn, where its side does not time a part of it
LBF = {"env_args.key": "lbforaging:Foraging-8x8-2p-3f-v3", "env_args.time_limit": 50}
PREY = {
    "map_size": 5, "n_predators": 2, "n_prey": 1, "penalty": 0.5, "sight": 2, "episode_limit": 100,
    "encoding": "one_hot",
}  # fmt: skip
QMIX = {  # as EPyMARL sets it
    "use_rnn": False, "obs_last_action": False, "standardise_rewards": True, "target_update_unit": "updates",
    "double_q": True, "lr": 5e-4, "hidden_dim": 64, "optimizer": "adam",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """ours, theirs: arguments of the two sides' `whole`. per: what is counted, a second of which clock."""

    label: str
    ours: dict
    peer: str
    theirs: dict = field(default_factory=dict)
    fresh: bool = True  # the peer's side
    cores: int | None = None
    count: str = "steps"
    clock: str = "seconds"


def run(options: Options, notes: Notes) -> None:
    """A row for each run; the matrix game alone is measured in seconds of CPU from the program's start to its end."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache  # our turns of SMAX compile once
        try:
            _runs(options, notes)
        finally:
            del os.environ["JAX_COMPILATION_CACHE_DIR"]
    _matrix(options, notes)


def _runs(options: Options, notes: Notes) -> None:
    titles = {
        ("steps", "cpu_seconds"): "Environment steps a second of CPU",
        ("steps", "seconds"): "Environment steps a second of wall clock",
        ("samples", "cpu_seconds"): "Transitions trained a second of CPU",
        ("samples", "seconds"): "Transitions trained a second of wall clock",
    }
    work = {"steps": "updates per 1,000 steps", "samples": "trained for each step played"}
    tables = {}
    for (count, clock), title in titles.items():
        peer = PEERS[count]
        columns = ["run", "ours", peer, f"ours / {peer}", f"{work[count]}: ours, {peer}"]
        tables[count, clock] = Table(f"{title} (median, quartiles)", columns)
    for one in sorted(_quick() if options.quick else _all(options.threads), key=lambda one: (one.count, one.clock)):
        if not options.wants(one.label):
            continue
        peer = next(iter(options.peers_of(one.peer)), None)
        shared = {"threads": options.threads, "cores": one.cores, "device": options.device}
        ours = one.ours | {"keys": one.ours["keys"] | options.keys}
        jobs = {"ours": Job("ours:whole", ours, fresh=True, **shared)}
        if peer:
            theirs = one.theirs | {"path": peer.path}
            jobs[peer.name] = Job(f"{one.peer}:whole", theirs, python=options.python, fresh=one.fresh, **shared)
        clock = "seconds" if options.device == "cuda" else one.clock
        table = tables[one.count, clock]

        def row(
            turns: dict, one: Run = one, peer: Peer | None = peer, table: Table = table, clock: str = clock
        ) -> None:
            sides = [turns["ours"], turns[peer.name] if peer else []]
            rates = [[t[one.count] / t.get(clock, t[WHOLE[clock]]) for t in side] for side in sides]
            what, steps = ("updates", 1000) if one.count == "steps" else ("samples", 1)
            made = [f"{steps * side[0][what] / side[0]['steps']:.3g}" for side in sides if side]
            table.add(
                one.label, *(spread(r) for r in rates), spread([a / b for a, b in zip(*rates)], 2), ", ".join(made)
            )

        measure(row, jobs, options.repeats or (1 if options.quick else 3), notes)


def _all(threads: int) -> list[Run]:
    runs = []
    for name, algorithm, theirs, keys in (
        ("QMIX", "qmix", "qmix", QMIX),
        ("QTRAN-base", "qtran_base", "qtran", PYMARL),
    ):
        for n_envs, t_max in ((1, 12000), (8, 24000)):
            shared = LBF | {"batch_size_run": n_envs, "t_max": t_max}
            their_keys = {"env_args": {"key": LBF["env_args.key"], "time_limit": 50}, "t_max": t_max}
            their_keys |= {"batch_size_run": n_envs, "runner": "parallel" if n_envs > 1 else "episode"}
            runs.append(Run(
                f"lbf {name}, {n_envs} environment{'s in worker processes' * (n_envs > 1)}",
                {"algorithm": algorithm, "env": "gymma", "keys": keys | shared | {"env_workers": n_envs > 1}},
                "epymarl", {"algorithm": theirs, "env": "gymma", "keys": their_keys},
                cores=None if n_envs > 1 else threads, clock="seconds" if n_envs > 1 else "cpu_seconds",
            ))  # fmt: skip
        runs.append(_prey(name, algorithm, theirs, keys, 32, 96000, 8, 16000))
    runs += [
        _smax(map_name, t_max, rounds, threads) for map_name, t_max, rounds in (("3m", 24000, 12), ("2s3z", 24000, 12))
    ]
    return runs


def _quick() -> list[Run]:
    return [_prey("QMIX", "qmix", "qmix", QMIX, 4, 600, 2, 400, episode_limit=10, batch_size=4)]


def _prey(
    name: str, algorithm: str, theirs: str, keys: dict, n_envs: int, t_max: int, their_n_envs: int, their_t_max: int,
    episode_limit: int = 100, batch_size: int = 32,
) -> Run:  # fmt: skip
    """Both make one update for each `their_n_envs` episodes, of whole episodes, and explore alike."""
    both = {"batch_size": batch_size, "buffer_size": 1000, "use_rnn": False, "obs_last_action": False}
    annealed = {"epsilon_start": 1.0, "epsilon_finish": 0.05, "epsilon_anneal_time": 50000}
    file = {"batch_steps": None, "learning_starts": 0, "hidden_dim": 64, "head_layers": 0, "lr_decay_start": None}
    ours = keys | both | annealed | file | {f"env_args.{k}": v for k, v in PREY.items()}
    ours |= {"env_args.episode_limit": episode_limit, "batch_size_run": n_envs, "t_max": t_max}
    ours |= {"updates_per_run": n_envs // their_n_envs, "target_update_interval_or_tau": 200}
    return Run(
        f"predator-prey {name}, {n_envs} array environments, EPyMARL's {their_n_envs} worker processes",
        {"algorithm": algorithm, "env": "predator_prey", "keys": ours},
        "epymarl",
        {
            "algorithm": theirs, "predator_prey": PREY | {"episode_limit": episode_limit},
            "keys": both | annealed | {"batch_size_run": their_n_envs, "runner": "parallel", "t_max": their_t_max},
        },
    )  # fmt: skip


def _smax(map_name: str, t_max: int, rounds: int, threads: int) -> Run:
    """QMIX as our file has it, and twice the minibatch, which makes 16 samples a step: as many as JaxMARL's."""
    keys = {"env_args.map_name": map_name, "t_max": t_max, "batch_size": 64, "buffer_size": 1000}
    return Run(
        f"smax {map_name} QMIX", {"algorithm": "qmix", "env": "smax", "keys": keys}, "jaxmarl",
        {"map_name": map_name, "rounds": rounds}, fresh=False, cores=threads, count="samples", clock="cpu_seconds",
    )  # fmt: skip


def _matrix(options: Options, notes: Notes) -> None:
    label = "matrix game, alt, 20,000 steps"
    if not options.wants(label):
        return
    table = Table("A whole program, start and end included (median, quartiles)", ["run", "seconds of CPU"])
    steps = ["t_max=320", "test_interval=1000"] if options.quick else []
    keys = [f"{key}={value}" for key, value in options.keys.items()]
    words = ["--config=qtran_alt", "--env-config=matrix_game", "with", "seed=1", *steps, *keys]
    job = Job("ours:program", {"words": words}, threads=options.threads, cores=options.threads)

    def row(turns: dict) -> None:
        table.add(label, spread([turn["cpu"] for turn in turns["ours"]], 1))

    measure(row, {"ours": job}, options.repeats or (1 if options.quick else 3), notes)
