"""`run.py carry`: the same rounds played by worker processes and by Ray actors on this machine."""

from dataclasses import replace

from costs.collect import N_ENVS, SLEEPER
from costs.options import Options
from costs.ours import PYMARL
from costs.report import Notes, Table, measure
from costs.sides import Job, spread

COLUMNS = ["playing", "runner=ray, steps/s", "workers, steps/s", "ray / workers"]
ACTORS = 2
STEP_MS = 5.0


def run(options: Options, notes: Notes) -> None:
    """A row for each `max_staleness`: without updates, or with one of QTRAN-base a round. The start is left out."""
    rounds, n_envs = (6, 2) if options.quick else (16, N_ENVS)
    rules = replace(SLEEPER, least_ms=STEP_MS, most_ms=STEP_MS)
    if options.quick:
        rules = replace(rules, shortest=4, longest=6, least_ms=0.1, most_ms=0.1)
    mean = (rules.shortest + rules.longest) / 2
    table = Table(
        f"runner=ray with {ACTORS} actors on this machine, and env_workers=True: {n_envs} environments, a step sleeps "
        f"{rules.least_ms:g} ms, an episode has {rules.shortest}–{rules.longest}; wall clock (median, quartiles)",
        COLUMNS,
    )
    kind = "with an update of 2s3z shapes a round" if options.updates else "no updates"
    for staleness in options.staleness:
        label = f"max_staleness {staleness}, {kind}"
        if not options.wants(label):
            continue
        keys = PYMARL | {"batch_size_run": n_envs, "t_max": round(rounds * n_envs * mean), "buffer_size": 256}
        keys |= {"batch_size": 4 * n_envs if options.updates else 256, "max_staleness": staleness} | options.keys

        def job(how: dict, keys: dict = keys) -> Job:
            arguments = {"algorithm": "qtran_base", "env": "two_step", "rules": rules.as_dict(), "keys": keys | how}
            return Job("ours:whole", arguments, threads=options.threads, device=options.device, fresh=True)

        jobs = {"ray": job({"runner": "ray", "ray_actors": ACTORS}), "workers": job({"env_workers": True})}

        def row(turns: dict, label: str = label) -> None:
            rates = {name: [t["steps"] / t["seconds"] for t in turns.get(name, [])] for name in ("ray", "workers")}
            ratios = [a / b for a, b in zip(rates["ray"], rates["workers"])]
            table.add(label, spread(rates["ray"]), spread(rates["workers"]), spread(ratios, 2))

        measure(row, jobs, options.repeats or (1 if options.quick else 3), notes)
