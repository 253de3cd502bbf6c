"""`run.py collect`: playing with worker processes in a game that takes its time."""

from dataclasses import replace

from costs.games import Rules
from costs.options import Options
from costs.ours import PYMARL
from costs.report import Notes, Table, measure
from costs.sides import Job, spread

COLUMNS = ["collecting", "ours, steps/s", "EPyMARL, steps/s", "ours / EPyMARL", "updates a round: ours, EPyMARL"]
N_ENVS = 8
SLEEPER = Rules(agents=5, actions=11, obs=80, state=120, shortest=20, longest=120, least_ms=0, most_ms=0)


def run(options: Options, notes: Notes) -> None:
    """A row for each `max_staleness`: without updates, or with one of QTRAN-base a round."""
    table = Table("Collecting with 8 worker processes, wall clock (median, quartiles)", COLUMNS)
    peer = next(iter(options.peers_of("epymarl")), None)
    rules = replace(SLEEPER, least_ms=options.sleep[0], most_ms=options.sleep[1])
    if options.quick:
        rules = replace(rules, shortest=4, longest=6, least_ms=0.1, most_ms=0.2)
    rounds, n_envs = (6, 2) if options.quick else (16, N_ENVS)
    mean = (rules.shortest + rules.longest) / 2
    least, most = options.sleep
    table.title += f"; a step sleeps {least:g}–{most:g} ms, an episode has {rules.shortest}–{rules.longest}"
    kind = "with an update of 2s3z shapes a round" if options.updates else "no updates"
    for staleness in options.staleness:
        label = f"max_staleness {staleness}, {kind}"
        if not options.wants(label):
            continue
        keys = {"batch_size_run": n_envs, "t_max": round(rounds * n_envs * mean), "buffer_size": 256}
        # Updates begin with the fourth round, which has 32 episodes; or never.
        keys["batch_size"] = 4 * n_envs if options.updates else 256
        ours = (
            PYMARL | keys | {"env_workers": True} | ({"max_staleness": staleness} if staleness else {}) | options.keys
        )
        jobs = {
            "ours": Job(
                "ours:whole",
                {"algorithm": "qtran_base", "env": "two_step", "rules": rules.as_dict(), "keys": ours},
                threads=options.threads, device=options.device, fresh=True,
            )
        }  # fmt: skip
        if peer:
            theirs = {"path": peer.path, "algorithm": "qtran", "rules": rules.as_dict()}
            jobs["EPyMARL"] = Job(
                "epymarl:whole", theirs | {"keys": keys | {"runner": "parallel"}}, python=options.python,
                threads=options.threads, device=options.device, fresh=True,
            )  # fmt: skip

        def row(turns: dict, label: str = label) -> None:
            rates = {name: [t["steps"] / t["seconds"] for t in turns.get(name, [])] for name in ("ours", "EPyMARL")}
            ratios = [a / b for a, b in zip(rates["ours"], rates["EPyMARL"])]
            made = [f"{t[0]['updates'] / t[0]['rounds']:.2g}" for n in rates if (t := turns.get(n))]
            table.add(label, spread(rates["ours"]), spread(rates["EPyMARL"]), spread(ratios, 2), ", ".join(made))

        measure(row, jobs, options.repeats or (1 if options.quick else 3), notes)
