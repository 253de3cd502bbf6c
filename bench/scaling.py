"""How one run with runner=ray scales: a model of its throughput. python bench/scaling.py --help"""

import argparse
import heapq
import math
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

SRC = Path(__file__).resolve().parents[1] / "src"
EXAMPLES = """\
Without "measure" it prints what the model says of the figures that were measured, and carries it to --games games. Each
option replaces one figure of the model. docs/scaling.md tells where the figures come from.

  python bench/scaling.py --figure docs/scaling.png
  python bench/scaling.py --games 200 --update-ms 10 --max-staleness 2
  python bench/scaling.py measure              # bytes of an episode, and what it costs the learner; needs Ray

exit status: 0; 1 Ray is not installed (measure); 2 bad input
"""


@dataclass(frozen=True)
class Setting:
    """One run. Times are in milliseconds; lengths of episodes are drawn evenly from shortest to longest steps."""

    games: int = 1000  # environments, batch_size_run
    games_per_actor: int = 8
    step_ms: float = 10.0  # a step of the game
    overhead_ms: float = 1.5  # around it: processes, pipes, waiting for the actor
    act_ms: float = 0.224  # of the actor's core, for 8 games at once
    shortest: int = 20
    longest: int = 120
    max_staleness: int = 1
    step_kb: float = 2.15  # of an episode, for each step
    network_gbit: float = 10.0  # a second, into the learner's machine
    episode_ms: float = 0.45  # of the learner's thread, to take in an episode, and for each MB of it
    mb_ms: float = 2.5
    update_ms: float = 96.0
    episodes_per_update: float = 8.0  # played for each update

    @property
    def mean_length(self) -> float:
        return (self.shortest + self.longest) / 2

    @property
    def step_seconds(self) -> float:
        """Between two steps of a game. In the worst case, which stands here, its actor acts for each game alone."""
        return max(self.step_ms + self.overhead_ms, self.games_per_actor * self.act_ms) / 1000

    @property
    def updates(self) -> float:
        """In a round."""
        return self.games / self.episodes_per_update

    def sending(self, length: float) -> float:
        """Seconds of the network for an episode of so many steps."""
        return length * self.step_kb * 1e3 * 8 / (self.network_gbit * 1e9)

    def taking_in(self, length: float) -> float:
        """Seconds of the learner's thread for an episode of so many steps."""
        return (self.episode_ms + self.mb_ms * length * self.step_kb / 1e3) / 1000


def ceilings(s: Setting) -> dict[str, float]:
    """{what is at work all the time: environment steps a second that it allows}."""
    thread = s.games * s.taking_in(s.mean_length) + s.updates * s.update_ms / 1000
    return {
        "games": s.games / s.step_seconds,
        "network": s.mean_length / s.sending(s.mean_length),
        "storing": s.mean_length / s.taking_in(s.mean_length),
        "learner": s.games * s.mean_length / thread,
    }


def throughput(s: Setting, rounds: int = 24, seed: int = 0) -> tuple[float, float]:
    """(environment steps, updates) a second, over the later half of the rounds.

    Round r of a game begins when its round r - 1 has ended and learning phase r - max_staleness is over. Episodes go
    through the network one after the other, then through the learner's thread, which makes a round's updates once it
    has all of its episodes.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(s.shortest, s.longest + 1, size=(rounds, s.games)).tolist()
    over = [0.0]  # when each learning phase was over
    missing = [s.games] * rounds
    waiting: dict[int, list[tuple[int, int]]] = {}  # {phase: [(game, round)]}
    network = thread = 0.0  # they are busy till then
    events = [(lengths[0][i] * s.step_seconds, False, i, 0) for i in range(s.games)]  # (when, it is there, game, round)
    heapq.heapify(events)
    while events:
        now, there, i, r = heapq.heappop(events)
        if not there:
            network = max(network, now) + s.sending(lengths[r][i])
            heapq.heappush(events, (network, True, i, r))
            begin, phase = [(now, i, r + 1)], max(0, r + 1 - s.max_staleness)
            if phase >= len(over):
                waiting.setdefault(phase, []).append((i, r + 1))
                continue
            begin = [(max(now, over[phase]), i, r + 1)]
        else:
            thread = max(thread, now) + s.taking_in(lengths[r][i])
            missing[r] -= 1
            begin = []
            while len(over) <= rounds and missing[len(over) - 1] == 0:
                thread += s.updates * s.update_ms / 1000
                begin += [(thread, *game) for game in waiting.pop(len(over), [])]
                over.append(thread)
        for start, game, number in begin:
            if number < rounds:
                heapq.heappush(events, (start + lengths[number][game] * s.step_seconds, False, game, number))
    half = rounds // 2
    seconds = over[rounds] - over[half]
    return sum(map(sum, lengths[half:])) / seconds, (rounds - half) * s.updates / seconds


# ---- what was measured, and what the model says of it

# One machine with two cores; the network is its memory. overhead_ms was set by the first row; the others test it. The
# last ones are beyond what two cores can do without waiting, which the model does not know.
HERE = Setting(games=8, games_per_actor=4, step_ms=5, network_gbit=1000, update_ms=0)
WORKERS = replace(HERE, games_per_actor=8, step_ms=10, episode_ms=0, mb_ms=0)
LEARNING = replace(WORKERS, update_ms=96)
CHECKS: list[tuple[str, Setting, float]] = [
    ("8 games of 5 ms, 2 actors, max_staleness 0", replace(HERE, max_staleness=0), 786),
    ("the same, max_staleness 2", replace(HERE, max_staleness=2), 1108),
    ("8 games of 5 ms, 2 actors on 2 local nodes, max_staleness 0", replace(HERE, max_staleness=0), 841),
    ("the same, max_staleness 2", replace(HERE, max_staleness=2), 1137),
    ("8 games of 5–15 ms, worker processes, max_staleness 0", replace(WORKERS, max_staleness=0), 490),
    ("the same, max_staleness 2", replace(WORKERS, max_staleness=2), 654),
    ("the same with updates, max_staleness 0", replace(LEARNING, max_staleness=0), 476),
    ("the same with updates, max_staleness 2", replace(LEARNING, max_staleness=2), 669),
    ("16 games of 5 ms, 2 actors, max_staleness 0", replace(HERE, games=16, games_per_actor=8, max_staleness=0), 1459),
    ("the same, max_staleness 2", replace(HERE, games=16, games_per_actor=8, max_staleness=2), 1793),
]
GPU_MS = 10.0  # an update on a GPU: assumed


def changes(s: Setting) -> list[tuple[str, Setting, int]]:
    """[(what is changed, a run then, how many of them share the games)], one after the other."""
    gpu = replace(s, update_ms=GPU_MS)
    rarer = replace(gpu, episodes_per_update=4 * s.episodes_per_update)
    out = [
        ("as it is", s, 1),
        (f"an update takes {GPU_MS:g} ms (a GPU)", gpu, 1),
        ("and 4 times fewer updates", rarer, 1),
    ]
    out.append(("and max_staleness 2", replace(rarer, max_staleness=2), 1))
    for runs in (4, 8):
        if s.games >= runs:
            out.append((f"{runs} runs with a GPU each share the games", replace(gpu, games=s.games // runs), runs))
    return out


def report(s: Setting) -> None:
    print("\n| measured here | steps/s | model, steps/s | model / measured |\n|---|---|---|---|")
    for label, setting, measured in CHECKS:
        model = throughput(setting, rounds=100)[0]
        print(f"| {label} | {measured:.0f} | {model:.0f} | {model / measured:.2f} |")
    print(f"\n| limit | steps/s with {s.games} games |\n|---|---|")
    for what, most in ceilings(s).items():
        print(f"| {what} | {most:,.0f} |")
    print("\n| games | max_staleness | steps/s | updates/s | limited by |\n|---|---|---|---|---|")
    for games in sizes(s.games):
        for staleness in (0, 1, 2):
            one = replace(s, games=games, max_staleness=staleness)
            steps, updates = throughput(one)
            print(f"| {games} | {staleness} | {steps:,.0f} | {updates:,.1f} | {limit(one, steps)} |")
    print(f"\n| {s.games} games | steps/s | updates/s | limited by |\n|---|---|---|---|")
    for label, one, runs in changes(s):
        steps, updates = throughput(one)
        print(f"| {label} | {runs * steps:,.0f} | {runs * updates:,.1f} | {limit(one, steps)} |")


def limit(s: Setting, steps: float) -> str:
    """What allows the least; or waiting, where nothing is at work for 85 % of the time."""
    name, most = min(ceilings(s).items(), key=lambda item: item[1])
    return name if steps > 0.85 * most else f"waiting for one another ({name} next)"


def sizes(most: int) -> list[int]:
    return sorted({n for n in (8, 32, 128, 512) if n < most} | {most})


def draw(s: Setting, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((by_games, by_network), (by_gpus, check)) = pyplot.subplots(2, 2, figsize=(11, 8))
    # The last line is seen where it lies on the one before.
    styles = [("#d62728", 1.5), ("#9ecae1", 4), ("#08519c", 1.5)]
    gpu = replace(s, update_ms=GPU_MS)
    games = sorted({8 * 2**k for k in range(9) if 8 * 2**k < 0.7 * s.games} | {s.games})
    for line, one in (("--", s), ("-", gpu)):
        for staleness, (colour, width) in enumerate(styles):
            rates = [throughput(replace(one, games=n, max_staleness=staleness))[0] for n in games]
            label = f"update {one.update_ms:g} ms, max_staleness {staleness}"
            by_games.plot(games, rates, line, color=colour, linewidth=width, marker="o", markersize=3, label=label)
    by_games.plot(
        games, [ceilings(replace(s, games=n))["games"] for n in games], ":", color="grey", label="games alone"
    )
    by_games.set(
        xscale="log", yscale="log", xlabel=f"games ({s.games_per_actor} an actor)", title="Games and staleness"
    )

    gbits = [0.1 * 2**k for k in range(11)]
    for staleness, (colour, width) in enumerate(styles):
        one = replace(gpu, max_staleness=staleness)
        rates = [throughput(replace(one, network_gbit=g))[0] for g in gbits]
        by_network.plot(
            gbits, rates, color=colour, linewidth=width, marker="o", markersize=3, label=f"max_staleness {staleness}"
        )
    by_network.plot(gbits, [ceilings(replace(gpu, network_gbit=g))["network"] for g in gbits], ":", color="grey",
                    label="network alone")  # fmt: skip
    by_network.set(xscale="log", yscale="log", xlabel="network into the learner, Gbit/s",
                   title=f"Network: {s.games} games, update {GPU_MS:g} ms")  # fmt: skip

    gpus = [n for n in (1, 2, 4, 8, 16) if n <= s.games]
    for staleness, (colour, width) in enumerate(styles):
        rates = [n * throughput(replace(gpu, games=s.games // n, max_staleness=staleness))[0] for n in gpus]
        by_gpus.plot(
            gpus, rates, color=colour, linewidth=width, marker="o", markersize=3, label=f"max_staleness {staleness}"
        )
    by_gpus.axhline(ceilings(s)["games"], linestyle=":", color="grey", label="games alone")
    by_gpus.set(xscale="log", ylim=(0, 1.1 * ceilings(s)["games"]), xlabel="GPUs, a run on each",
                title=f"GPUs: runs that share {s.games} games")  # fmt: skip

    models = [throughput(setting, rounds=100)[0] for _, setting, _ in CHECKS]
    measured = [rate for _, _, rate in CHECKS]
    check.scatter(measured, models, color="#1f77b4", zorder=3)
    ends = [0.8 * min(models + measured), 1.2 * max(models + measured)]
    check.plot(ends, ends, ":", color="grey", label="equal")
    check.set(xlabel="measured here, steps/s", title="Model against measurements")
    for axis, ticks in ((by_games, games), (by_network, [0.1, 1, 10, 100]), (by_gpus, gpus)):
        axis.set_xticks(ticks)
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:g}")
    for axis in (by_games, by_network, by_gpus, check):
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.set_ylabel("model, environment steps/s")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    print(f"figure: {path}")


# ---- measuring the learner's part of an episode


def measure() -> int:
    """Prints the bytes of an episode of 2s3z's shapes, and milliseconds of the learner's thread to take it in."""
    sys.path[:0] = [str(SRC)]
    from costs.sizes import BATTLES

    from components.episode_buffer import EpisodeBatch, make_scheme
    from envs.vector import EnvInfo
    from runners.ray_actor import Episode, Told
    from runners.ray_runner import Round
    from utils.ray_cluster import RayCluster
    from utils.registry import MissingPackage

    sizes, count = BATTLES["2s3z"], 100
    info = EnvInfo(sizes.agents, sizes.actions, sizes.obs, sizes.state, sizes.steps)
    scheme, groups = make_scheme(info, True), {"agents": sizes.agents}
    try:
        cluster = RayCluster("measure", None, cpus=2)
    except MissingPackage as error:
        print(error, file=sys.stderr)
        return 1
    try:
        import ray

        class Giver:
            def collect(self, answer: bytes) -> bytes:
                return answer

        actors = [ray.remote(Giver).remote() for _ in range(2)]
        for steps in (20, 120):
            batch = EpisodeBatch(scheme, groups, count, sizes.steps + 1)
            played = {name: values[0, : steps + 1].copy() for name, values in batch.arrays().items()}
            episode = Episode((0, 0), 0, played, np.zeros(1), steps, {}, None, None, 1)
            answer = pickle.dumps(Told([episode], [], 0, None), protocol=5)
            sent = ray.put(answer)
            turns = [_taken_in(actors, sent, Round(batch), count) for _ in range(6)][1:]
            told = ["{1:.2f} ({0:.2f}–{2:.2f})".format(*np.percentile(each, [25, 50, 75])) for each in zip(*turns)]
            print(
                f"{steps} steps, {len(answer):,} bytes: {told[0]} ms of the thread, {told[1]} ms of all Ray's threads"
            )
    finally:
        cluster.close()
    return 0


def _taken_in(actors: list, sent: Any, there: Any, count: int) -> tuple[float, float]:
    """Take in `count` episodes as `RayEnv.gather` does: (CPU milliseconds of this thread, of the process) for each."""
    import ray

    asked = {actor.collect.remote(sent): actor for actor in actors}
    before = time.thread_time(), time.process_time()
    for i in range(count):
        (reference,), _ = ray.wait(list(asked), num_returns=1)
        actor = asked.pop(reference)
        (one,) = pickle.loads(ray.get(reference)).episodes
        asked[actor.collect.remote(sent)] = actor
        there.take_in(one._replace(i=i))
    after = time.thread_time(), time.process_time()
    ray.wait(list(asked), num_returns=len(asked))
    return (after[0] - before[0]) / count * 1000, (after[1] - before[1]) / count * 1000


# ---- command line


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/scaling.py", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("what", nargs="?", choices=["measure"], help="measure an episode's cost here, in place of the model")
    p.add_argument("--figure", type=picture, metavar="FILE", help="draw it there, .png, .svg or .pdf")
    for field in fields(Setting):
        least = 0.0 if field.name.endswith("_ms") or field.name == "max_staleness" else None
        whole = isinstance(field.default, int)
        p.add_argument(
            f"--{field.name.replace('_', '-')}", type=number(whole, least), default=field.default, metavar="N",
            help=f"(default: {field.default})",
        )  # fmt: skip
    return p


def number(whole: bool, least: float | None) -> Callable[[str], float]:
    """A reader of numbers: finite, above 0, or at least `least`."""

    def read(text: str) -> float:
        try:
            value: float = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < (least or 0) or (least is None and value == 0):
            kind = "whole number" if whole else "number"
            allowed = "above 0" if least is None else f"of at least {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind} {allowed}")
        return value

    return read


def picture(text: str) -> str:
    if not text.endswith((".png", ".svg", ".pdf")):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, .svg or .pdf")
    return text


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status; bad input exits with 2."""
    p = parser()
    asked = p.parse_args(argv)
    if asked.shortest > asked.longest:
        p.error(f"--shortest {asked.shortest}: longer than --longest {asked.longest}")
    if asked.what == "measure":
        return measure()
    setting = Setting(**{field.name: getattr(asked, field.name) for field in fields(Setting)})
    report(setting)
    if asked.figure:
        draw(setting, asked.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
