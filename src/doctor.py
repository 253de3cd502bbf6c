"""Command line: what works on this machine, what does not, and the command that fixes it.

python src/doctor.py --env-config=sc2
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import sys
from typing import TYPE_CHECKING, Any

from utils import command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from checks import Check


EXAMPLES = """\
checked: Python, the packages, torch and its device, each environment, StarCraft II (SC2PATH, version, maps), ports,
MongoDB, disk space for results, memory. Values after `with` are those of the run, as for src/main.py:

  python src/doctor.py                                                       this machine, and the built-in games
  python src/doctor.py --config=qtran_alt --env-config=predator_prey         what this run needs
  python src/doctor.py --env-config=matrix_game with buffer_size=100000 local_results_path=results
  python src/doctor.py --start matrix_game                                   play one episode with random actions
  python src/doctor.py --start sc2 with env_args.map_name=2s3z               the same with StarCraft II

states: ok; missing: not installed, but not needed for what you asked; broken: needed, and it does not work

exit status: 0 everything that is needed works; 1 something is broken; 2 bad input
"""
EMBEDDED = "matrix_game"  # what is checked when no environment is named; it needs nothing but the core


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("with") if "with" in argv else len(argv)
    return command.status_of(act, parser().parse_args(argv[:split]), argv[split + 1 :])


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "src/doctor.py",
        "Show what works on this machine, and how to fix what does not.",
        EXAMPLES,
        usage="%(prog)s [--config=ALGORITHM] [--env-config=ENVIRONMENT] [--start ENVIRONMENT] [with KEY=VALUE ...]",
    )
    p.add_argument(
        "--config", metavar="ALGORITHM", default="qtran_alt", help="algorithm of the run (default: %(default)s)"
    )
    p.add_argument("--env-config", metavar="ENVIRONMENT", help="environment of the run; it must work then")
    p.add_argument("--start", metavar="ENVIRONMENT", help="the same, and play one episode")
    return p


def act(options: argparse.Namespace, words: list[str]) -> int:
    import checks

    found = []
    for check in (checks.python, lambda: checks.packages("requirements.txt"), checks.torch_device, checks.sacred):
        found.append(check())
        if found[-1].state == "broken":
            return conclude(found, "nothing else was checked, because everything needs this")
    if options.env_config and options.start and options.env_config != options.start:
        from utils.args import ConfigError

        raise ConfigError(
            f"--env-config={options.env_config} and --start {options.start}: give one of the two, or the same name"
        )
    game = options.env_config or options.start or EMBEDDED
    alone = bool(options.env_config or options.start)
    from utils import config_files

    flag = "start" if options.start else "env-config"
    config_files.check_choices(("config", "algs", options.config), (flag, "envs", game))
    rows, playable = of_environments(game, alone)
    values = values_of(options.config, game, words) if playable else shared_values(options.config, words)
    found += [
        *rows,
        checks.ports(values["batch_size_run"]),
        checks.mongo(values["mongo_url"], values["mongo_db"]),
        checks.disk(values["local_results_path"]),
    ]
    if not playable:
        return conclude(
            found, f"the memory of the replay and the game was not checked, because {game} does not work here"
        )
    found.append(checks.memory(values))
    if options.start:
        print(f"playing one episode of {options.start}", file=sys.stderr, flush=True)
        found.append(checks.episode(values))
    return conclude(found)


def of_environments(game: str, alone: bool) -> tuple:
    """(Checks of every environment and what they need, whether this machine has it for the one of `game`). alone: of
    that one only."""
    import checks
    from envs import REGISTRY
    from utils import config_files, own_modules

    own_modules.search(None)
    needed = config_files.environment_of(game)
    games = [needed] if alone else REGISTRY
    of_games = {name: checks.environment(name, name == needed) for name in games}
    starcraft = needed.startswith("sc2")
    files = [file for file in checks.extras() if not alone or file in checks.installed_by(needed)]
    found = [*of_games.values(), *(checks.packages(file, needed=False) for file in files)]
    if starcraft or not alone:
        found += [checks.protobuf(starcraft), *checks.starcraft(starcraft)]
    return found, of_games[needed].state == "ok"


def values_of(algorithm: str, game: str, words: list[str]) -> dict[str, Any]:
    """The configuration of the run."""
    from parts import readers
    from utils import config as configuration

    config = configuration.load(algorithm, game, configuration.parse_overrides(words), readers)
    return config.values | config.secrets


def shared_values(algorithm: str, words: list[str]) -> dict[str, Any]:
    """What the run of a game that is not there shares with that of the embedded one."""
    return values_of(algorithm, EMBEDDED, [word for word in words if not word.startswith("env_args.")])


def conclude(found: list[Check], note: str | None = None) -> int:
    """Show the Checks; returns the exit status."""
    show(found)
    if note:
        print(note)
    broken = [check.name for check in found if check.state == "broken"]
    print(f"broken: {', '.join(broken)}" if broken else "everything that is needed works")
    return int(bool(broken))


def show(found: list[Check]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:  # of what is not installed
        for check in found:
            print(f"{check.state:8}{check.name}: {check.detail}" + (f"\n        fix: {check.fix}" if check.fix else ""))
        return
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    console = Console()
    narrow = console.is_terminal  # a column for the commands would cut them there: they stand below, each in one piece
    table = Table("what", "state", "found") if narrow else Table("what", "state", "found", "fix")
    for check in found:
        state = Text(check.state, style=colours[check.state])
        row = [Text(check.name), state, Text(check.detail)]
        table.add_row(*row, *([] if narrow else [Text(check.fix)]))
    if not narrow:
        console = Console(width=1000)  # as wide as its longest line: one line a row, to be searched
    console.print(table)
    for check in found if narrow else ():
        if check.fix:
            print(f"{check.name}, fix: {check.fix}")


if __name__ == "__main__":
    sys.exit(main())
