"""What a run costs, ours beside a peer's: python bench/run.py --help"""

import argparse
import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator

from costs.options import Options
from costs.peers import recognise
from costs.report import Notes, machine
from costs.sides import BadInput, Failed, Interrupted

# {subcommand: (what it measures, the peers that it can take)}
SUBCOMMANDS = {
    "update": ("one update on shapes of battles", ("epymarl", "starry", "pymarl2", "wqmix", "resq")),
    "act": ("playing without learning in games that cost nothing: select and store", ("epymarl",)),
    "collect": ("playing with 8 worker processes in a game that sleeps 5-15 ms a step", ("epymarl",)),
    "carry": ("playing with 2 Ray actors on this machine beside worker processes; a step sleeps 5 ms", ()),
    "train": ("whole runs: lbforaging, predator-prey, SMAX, a matrix game", ("epymarl", "jaxmarl")),
    "memory": ("peak memory above the replay, on shapes of MMM2", ("epymarl",)),
    "grow": ("how cost grows with agents, actions, steps and environments", ("epymarl",)),
}
EXAMPLES = """\
without a subcommand all but grow and carry, which needs Ray, are run, each with the peers that it can take.

  python bench/run.py update --peer ../epymarl --only 2s3z
  python bench/run.py update --peer ../MARL-Algorithms --only alt full
  python bench/run.py update --peer ../pymarl2 --peer ../wqmix --peer ../ResQ --only 2s3z
  python bench/run.py collect --peer ../epymarl --staleness 0 2 --updates
  python bench/run.py carry --staleness 0 2
  python bench/run.py train --peer ../JaxMARL --only smax
  python bench/run.py memory --minutes 30 -- --config=qtran_alt --env-config=predator_prey with t_max=100000000

Ours and the peer's take turns, A B A B, each in a process of its own, with the same number of threads on the same
cores. Ratios are of neighbouring turns. Ctrl-C and SIGTERM end it with the rows that there are.

exit status: 0 measured; 1 a side failed; 2 bad input; 130 Ctrl-C; 143 SIGTERM
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/run.py",
        description="What a run costs, ours beside a peer's.",
        epilog="".join(f"  {name:9s}{what}\n" for name, (what, _) in SUBCOMMANDS.items()) + "\n" + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "what", nargs="*", metavar="SUBCOMMAND", help=f"{', '.join(SUBCOMMANDS)} (default: all but grow, carry)"
    )
    p.add_argument("--peer", action="append", default=[], metavar="PATH", help="a peer's checkout; may be repeated")
    p.add_argument(
        "--peer-python", default=sys.executable, metavar="PYTHON", help="its interpreter (default: this one)"
    )
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--threads", type=_positive, default=1, help="of each side (default: 1)")
    p.add_argument("--repeats", type=_positive, help="turns of each side (default: 15, of whole runs 3)")
    p.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only rows whose label has all these words")
    p.add_argument("--quick", action="store_true", help="tiny shapes: whether all works; the numbers mean nothing")
    p.add_argument(
        "--with",
        nargs="+",
        default=[],
        dest="keys",
        metavar="KEY=VALUE",
        help="keys of our configuration, over a row's",
    )
    p.add_argument(
        "--staleness", nargs="+", type=int, choices=range(5), default=[0], metavar="S",
        help="collect, carry: our max_staleness; a row for each (default: 0)",
    )  # fmt: skip
    p.add_argument(
        "--sleep", nargs=2, type=float, default=[5, 15], metavar=("LEAST", "MOST"),
        help="collect: milliseconds that a step of its game takes, drawn (default: 5 15)",
    )  # fmt: skip
    p.add_argument("--updates", action="store_true", help="collect, carry: with an update of 2s3z shapes a round")
    p.add_argument("--minutes", type=float, help="memory: watch one run of ours for so long; its words follow --")
    p.add_argument("--figure", metavar="FILE", help="grow: draw it there")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    asked, rest, notes = parser().parse_args(argv[:split]), tuple(argv[split + 1 :]), Notes()
    with stoppable() as caught:
        try:
            names = asked.what or [name for name in SUBCOMMANDS if name not in ("grow", "carry")]
            options = _options(asked, names, rest)
            print(machine(options.device, options.threads), flush=True)
            for peer in options.peers:
                print(f"peer: {peer.name} {peer.commit}", flush=True)
            for name in names:
                importlib.import_module(f"costs.{name}").run(options, notes)
            status, last = int(notes.failed), None
        except BadInput as error:
            status, last = 2, f"error: {error}"
        except Failed as error:
            status, last = 1, f"failed: {error}"
        except (Interrupted, KeyboardInterrupt):
            status = 128 + (caught or [signal.SIGINT])[0]
            last = "interrupted: the rows above are what was measured until then"
    notes.show()
    if last:
        print(last, file=sys.stderr)
    return status


@contextlib.contextmanager
def stoppable() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt within; yields a list of the signals that came."""
    caught: list[int] = []

    def stop(signum: int, _: object) -> None:
        caught.append(signum)
        raise KeyboardInterrupt

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, stop)
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _options(asked: argparse.Namespace, names: list[str], rest: tuple[str, ...]) -> Options:
    """BadInput where something in it cannot be."""
    for name in names:
        if name not in SUBCOMMANDS:
            raise BadInput(f"{name!r} is none of the subcommands: {', '.join(SUBCOMMANDS)}")
    peers = tuple(recognise(path) for path in asked.peer)
    for peer in peers:
        if not any(peer.kind in SUBCOMMANDS[name][1] for name in names):
            raise BadInput(f"--peer: {', '.join(names)} measures nothing that {peer.name} has; leave --peer out")
    if rest and asked.minutes is None:
        raise BadInput(
            "words after -- are for a run that `memory --minutes N` watches; give --minutes, or leave them out"
        )
    if asked.minutes is not None and (names != ["memory"] or not rest or not asked.minutes > 0):
        raise BadInput("--minutes N goes with the subcommand memory alone, is above 0, and a run's words follow --")
    if not 0 <= asked.sleep[0] <= asked.sleep[1]:
        raise BadInput(
            f"--sleep {asked.sleep[0]:g} {asked.sleep[1]:g}: give two numbers of milliseconds, from 0 on, rising"
        )
    if asked.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BadInput("--device cuda: torch sees no GPU; give --device cpu, or install torch for your card")
    keys = {}
    for word in asked.keys:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise BadInput(f"--with {word}: not KEY=VALUE")
        keys[name] = _literal(value)
    return Options(
        peers=peers, device=asked.device, threads=asked.threads, repeats=asked.repeats, quick=asked.quick,
        only=tuple(asked.only), keys=keys, python=asked.peer_python, staleness=tuple(asked.staleness),
        sleep=tuple(asked.sleep),
        updates=asked.updates, minutes=asked.minutes, figure=asked.figure, rest=rest,
    )  # fmt: skip


def _literal(value: str) -> object:
    import ast

    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
