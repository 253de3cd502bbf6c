"""Command line: run a study, algorithms × environments × seeds, as processes of this machine or on a cluster.

python src/sweep.py studies/NAME.yaml
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import command
from utils.words import add_list, at_least

if TYPE_CHECKING:
    from rich.console import Console

    from sweeping.estimate import Sample
    from sweeping.plan import Existing, Plan, PlannedRun
    from sweeping.submission import Order
    from utils.runs import Run

PROBE_SECONDS = 20

DETAILS = """\
a study is a YAML file:

  title: Modified predator-prey, 5x5            # one line, optional
  question: Does V_jt help?                     # optional
  algorithms:                                   # LABEL: changes of config/algs/LABEL.yaml, or of the file it names
    qmix:                                       # as it is
    qtran_alt: {lr: 0.001}
    "qtran_alt, no V_jt": {config: qtran_alt, v_input: none}
  environments:                                 # the same with config/envs; a list of names will do for both
    P = 0.5: {env-config: predator_prey, env_args.penalty: 0.5}
    P = 1.5: {env-config: predator_prey, env_args.penalty: 1.5}
  overrides: {t_max: 500000}                    # for every run, optional
  seeds: 1-5                                    # 3, 1-5, "1-3, 7" or a list
  allow_different: [batch_size_run]             # what may differ between algorithms, optional
  results: results/studies/predator_prey        # optional; by default results/studies/<name of the file>
  modules: []                                   # files and folders of Python that the runs import, optional

Each run is `python src/main.py --config=... --env-config=... with ...` with the algorithm's label as its name.
A YAML file of your own may stand where a name does, `mine/my_algorithm.yaml:`; it is looked for beside the study, then
in the working directory.
Later layers win: default.yaml, config/envs, config/algs, overrides, the environment's changes, the algorithm's.
Within an environment the algorithms must agree in what makes a comparison fair (t_max, batch_size_run, the tests,
the reward, env_args), unless allow_different names the key.

A study that searches settings has one of these, or both; each setting has runs of its own (docs/grids.md):

  grid: {lr: [0.0005, 0.001], opt_loss: [0.03, 1]}     # every combination
  sample:                                              # drawn from ranges
    number: 20                                         # of settings
    seed: 1                                            # of the draws, 0 by default
    lr: {log_uniform: [0.0001, 0.01]}
    td_lambda: {uniform: [0, 1]}
    batch_size: {integer: [16, 64]}
    hidden_dim: {choice: [64, 128]}

They are for all algorithms, or stand in one of them: qtran_alt: {grid: {opt_loss: [0.03, 1]}}. Runs are named
"qtran_alt, lr=0.0005, opt_loss=0.03"; --algorithms takes such a name, or qtran_alt for all of its settings.
src/report.py draws the result over the settings and prints the best one. The study of the results then says
tuned_on: studies/TUNING.yaml, and is refused where it has one of the seeds of that study.

A run is complete when a run directory in the results folder has its configuration and is `finished`; there is no
other record. So the same command goes on after Ctrl-C, a crash or a failure: runs that were stopped are resumed from
their last state, in their directories, and only runs that do not exist yet are started.

Several sweeps may work on one study at once, on one machine or on many that share the results folder. Each run is
claimed by one of them; the others leave it alone, and go on with it when its process is dead.

  python src/sweep.py studies/NAME.yaml --dry-run
  python src/sweep.py studies/NAME.yaml --workers 4 --seeds 1-2 --algorithms qmix "qtran_alt, no V_jt"
  python src/sweep.py studies/NAME.yaml --gpus-per-run 0.25
  python src/sweep.py studies/NAME.yaml --engine slurm --set slurm.partition=gpu gpus_per_run=0.25
  python src/sweep.py studies/NAME.yaml --engine slurm --status
  python src/sweep.py studies/NAME.yaml --engine k8s --render FOLDER

exit status: 0 all complete; 1 some failed; 2 bad input; 130, 143 interrupted (Ctrl-C, SIGTERM)
"""


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(argv)
    return command.status_of(act, options, argv)


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "src/sweep.py",
        "Run a study: algorithms × environments × seeds, several runs at a time.",
        DETAILS,
        usage="%(prog)s STUDY [options]",
    )
    p.add_argument("study", metavar="STUDY", help="a YAML file, such as studies/NAME.yaml")
    p.add_argument("--dry-run", action="store_true", help="show the plan, what is complete and the time it takes")
    p.add_argument("--workers", metavar="N", type=at_least(1), help="runs at a time (default: cores / num_threads)")
    p.add_argument("--retries", metavar="N", type=at_least(0), default=1, help="restarts of a failed run (default: 1)")
    add_list(p, "--algorithms", "LABEL", "only these of the study")
    add_list(p, "--environments", "LABEL", "only these of the study")
    p.add_argument("--seeds", metavar="SEEDS", help="only these of the study, such as 1-3,7")
    p.add_argument("--results", metavar="DIR", help="results folder in place of the study's")
    p.add_argument("--gpus-per-run", metavar="N", type=float, help="GPUs of a run; 0.25: four runs share one")
    c = p.add_argument_group("on a cluster (docs/clusters.md)")
    c.add_argument("--engine", metavar="NAME", help="local (the default), slurm, ray or k8s")
    c.add_argument("--cluster", metavar="FILE", help="what the runs need (default: cluster.yaml beside the study)")
    c.add_argument("--set", metavar="KEY=VALUE", nargs="+", default=[], help="keys that replace those of that file")
    c.add_argument("--sbatch", metavar="FLAGS", help='flags of sbatch, in one word: --sbatch="--partition=gpu --nice"')
    c.add_argument("--render", metavar="DIR", nargs="?", const="", help="slurm: print the job script; k8s: write YAML")
    c.add_argument("--status", action="store_true", help="jobs of this study that wait or run, and what is complete")
    c.add_argument("--cancel", action="store_true", help="end the jobs of this study; their runs save first")
    c.add_argument("--submission", metavar="DIR", help="for the jobs themselves: work on what was submitted")
    return p


def act(options: argparse.Namespace, argv: list[str]) -> int:
    from rich.console import Console

    from parts import readers
    from sweeping import engines
    from sweeping.cards import Cards
    from sweeping.cluster import read_cluster
    from sweeping.engines import local
    from sweeping.plan import read_plan
    from sweeping.submission import Order, receive
    from sweeping.turns import refuse_another_plan
    from sweeping.work import interruptions, writable

    sent = Path(options.submission or os.devnull, "modules")  # of this study, to a cluster
    modules = sent if sent.is_dir() and any(sent.iterdir()) else None
    plan = read_plan(options.study, readers, options.results, modules, sent=bool(options.submission))
    runs = plan.selected(options.algorithms, options.environments, options.seeds)
    flags = {"engine": options.engine, "gpus_per_run": options.gpus_per_run}
    cluster = read_cluster(Path(options.study), options.cluster, options.set, flags, options.sbatch)
    received = receive(Path(options.submission), plan) if options.submission else None
    if received:
        received.place(runs)
    render = options.render is not None
    action = "render" if render else "status" if options.status else "cancel" if options.cancel else "start"
    elsewhere = cluster.engine != "local"
    plans_alone = action == "start" and (options.dry_run or not elsewhere)  # then nothing is asked of the engine
    engine: Any = local if plans_alone else engines.find(cluster.engine, action)
    # Where a script is printed, it alone is on the standard output.
    console = Console(highlight=False, emoji=False, stderr=render)
    workers, cards, said = local.places(runs, cluster, options.workers) if not elsewhere else (0, Cards(), [])
    for line in said:
        say(console, line)
    if options.dry_run and not elsewhere:
        with interruptions() as signals:
            return dry_run(plan, runs, workers, console, signals)
    if action in ("start", "render") and not options.dry_run:
        refuse_another_plan(runs, plan.results)
        writable(plan.results)
    existing = tell_plan(plan, runs, console)
    order = Order(
        study=Path(options.study),
        plan=plan,
        runs=runs,
        left=[run for run in runs if run not in existing.complete],
        cluster=cluster,
        retries=options.retries,
        samples=paces(existing),
        memory=memory_of,
        say=lambda text: say(console, text),
        again=command_line("sweep.py", *argv),
        report=command_line("report.py", plan.results),
    )
    if options.dry_run:
        return dry_run_elsewhere(order)
    if not elsewhere:
        return local.start(order, workers, cards, received, console)
    return engine.render(order, options.render) if render else getattr(engine, action)(order)


def memory_of(run: PlannedRun, device: str) -> float | None:
    """GiB of main memory that a run takes which learns on the device, without Python and torch themselves; None where
    its game cannot be made here."""
    from checks import needed_memory

    try:
        needed, _ = needed_memory(run.values, device)
    except Exception:  # a package that is not here, or the game's own
        return None
    return sum(part.nbytes for part in needed.on().get("cpu", [])) / 2**30


def say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def command_line(script: str, *words: object) -> str:
    """The command line of a script beside this one, as one would type it here."""
    return shlex.join(["python", os.path.relpath(Path(__file__).with_name(script)), *map(str, words)])


# ---- the plan, told


def dry_run(plan: Plan, runs: list[PlannedRun], workers: int, console: Console, received: list[int]) -> int:
    from sweeping.estimate import Estimate, makespan, probe
    from utils.messages import duration

    existing = tell_plan(plan, runs, console)
    left = [run for run in runs if run not in existing.complete]
    samples = paces(existing)
    known = {(run.base, run.environment) for run, _ in samples}
    firsts = {(run.base, run.environment): run for run in reversed(left)}
    firsts = {key: run for key, run in firsts.items() if key not in known}
    if firsts:
        named = ", ".join(f"{base} on {environment}" for base, environment in firsts)
        say(console, f"no finished run of {named} to estimate from: running each for {PROBE_SECONDS} s")
        probed, problems = probe(firsts.values(), workers, PROBE_SECONDS, lambda: bool(received))
        if received:
            return 128 + received[0]
        for problem in problems:
            say(console, f"  {problem}")
        samples += probed
    estimate = Estimate(samples)
    seconds = makespan([], [estimate(run) for run in left], workers)
    basis = ", a rough estimate" if firsts else f", estimated from {len(existing.complete)} that are complete"
    time = duration(seconds) + (basis if seconds is not None else "")
    say(console, f"to do: {len(left)} of {len(runs)} runs, {workers} at a time; time: {time}")
    return 0


def dry_run_elsewhere(order: Order) -> int:
    """Of a cluster: nothing is tried out, for this machine is not one of its nodes."""
    from sweeping.estimate import Estimate, makespan
    from utils.messages import duration

    estimate = Estimate(order.samples)
    places = order.cluster.jobs and order.cluster.jobs * order.runs_per_job
    seconds = makespan([], [estimate(run) for run in order.left], places or 1)
    at_a_time = f"{places} at a time" if places else "as many at a time as the cluster gives"
    time = "not known until a run has finished" if seconds is None else duration(seconds)
    if seconds is not None:
        time += " of computing, beside waiting in the queue" if places else " of computing, all runs together"
    order.say(f"to do: {len(order.left)} of {len(order.runs)} runs, {at_a_time}; time: {time}")
    return 0


def tell_plan(plan: Plan, runs: list[PlannedRun], console: Console) -> Existing:
    """Show the plan, and return what lies in its results folder."""
    from rich.table import Table
    from rich.text import Text

    from reporting import grouping
    from sweeping.plan import Existing
    from utils.runs import find_runs

    existing = Existing(plan.runs, find_runs(plan.results))
    say(console, plan.title)
    if plan.question:
        say(console, plan.question)
    tell_settings(plan, console)
    algorithms, environments = (
        list(dict.fromkeys(labels)) for labels in zip(*((r.algorithm, r.environment) for r in runs))
    )
    table = Table("complete")
    for e in environments:
        table.add_column(Text(e))
    for a in algorithms:
        cells = [[run for run in runs if (run.algorithm, run.environment) == (a, e)] for e in environments]
        done = [sum(run in existing.complete for run in cell) for cell in cells]
        table.add_row(Text(a), *(f"{n} of {len(cell)}" for n, cell in zip(done, cells)))
    console.print(table)
    done = sum(run in existing.complete for run in runs)
    say(console, f"{done} of {len(runs)} runs complete; seeds {grouping.seeds(runs)}; results: {plan.results}")
    tell_leftovers(plan, existing, console)
    return existing


def tell_settings(plan: Plan, console: Console) -> None:
    """Say which keys are searched."""
    keys = {}
    for base, point in plan.settings.values():
        if point:
            keys.setdefault(base, []).append(point)
    for base, points in keys.items():
        say(console, f"{base}: {len(points)} settings of {', '.join(points[0])}")


def tell_leftovers(plan: Plan, existing: Existing, console: Console) -> None:
    """Say what lies in the results folder and is not counted."""
    going_on = list(existing.resumable.values())
    tell_unfinished(going_on, "unfinished runs, which a sweep goes on with", console)
    others = [run for run in existing.unfinished if run not in going_on]
    tell_unfinished(others, "run directories not counted, unfinished or damaged", console)
    if existing.other:
        say(console, f"run directories not counted, finished with other settings: {len(existing.other)}")
        for run in existing.other[:3]:
            say(console, f"  {run.path}: {what_differs(run, plan)}")


def tell_unfinished(runs: list[Run], title: str, console: Console) -> None:
    from status import status_of

    if runs:
        say(console, f"{title}: {len(runs)}")
    for run in runs[:3]:
        reason = run.problem or run.summary.get("reason")
        say(console, f"  {run.path}: {status_of(run).state}{f': {reason}' if reason else ''}")


def what_differs(run: Run, plan: Plan) -> str:
    """How a finished run differs from the planned run of its name that is most like it."""
    from sweeping.plan import differences

    differs = [
        differences(run.config, planned.values) for planned in plan.runs if planned.algorithm == run.config["name"]
    ]
    if not differs:
        return f"the study has no algorithm {run.config['name']!r}"
    least = min(differs, key=len)
    return "; ".join(least[:3]) + (" …" if len(least) > 3 else "")


def paces(existing: Existing) -> list[Sample]:
    """Samples for an Estimate from runs that are complete."""
    return [
        (planned, run.summary["wall_time_s"] / planned.values["t_max"])
        for planned, run in existing.complete.items()
        if isinstance(run.summary.get("wall_time_s"), (int, float)) and run.summary["wall_time_s"] < 1e12
    ]


if __name__ == "__main__":
    sys.exit(main())
