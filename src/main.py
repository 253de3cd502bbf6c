"""Command line: train or evaluate one algorithm on one environment.

python src/main.py --config=qtran_alt --env-config=matrix_game with seed=1 t_max=10000
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import sys
from typing import TYPE_CHECKING

from utils import command, version

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


EXAMPLES = """\
values after `with` are written as in Sacred; nested keys have a dot:

  python src/main.py --config=qtran_alt --env-config=matrix_game
  python src/main.py --config=qmix --env-config=predator_prey with env_args.penalty=1.5 seed=1 t_max=1000000
  python src/main.py --config=qtran_base --env-config=matrix_game with "env_args.payoff=[[5,0],[0,9]]"
  python src/main.py --from results/qtran_alt/matrix_game/seed1_...                  repeat a run
  python src/main.py --from results/qtran_alt/matrix_game/seed1_... with evaluate=True   play its last checkpoint
  python src/main.py --config=my_algorithm.yaml --env-config=two_step                a file of your own
  python src/main.py --resume results/qtran_alt/matrix_game/seed1_...                resume a run that was stopped
  python src/main.py --resume=latest --config=qmix --env-config=smax with seed=1     resume or start: for job scripts
  python src/main.py --status results                            state and steps of the runs in this folder
  python src/main.py --config=qtran_alt --env-config=matrix_game --explain           every key of that run
  python src/main.py --list                                      algorithms, environments, what is installed

After a signal (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2) the run finishes its round, saves its state and stops.
After a second signal it stops at once.

exit status: 0 finished; 1 training failed; 2 bad input; 128 + n after signal n (130 Ctrl-C, 143 SIGTERM)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("with") if "with" in argv else len(argv)
    options, stray = parser().parse_known_args(argv[:split])
    if stray:
        values = " ".join(word for word in stray if "=" in word and not word.startswith("-"))
        hint = f"; values come after the word `with`: with {values}" if values else ""
        parser().error(f"unrecognized arguments: {' '.join(stray)}{hint}")
    return command.status_of(act, options, argv[split + 1 :])


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "src/main.py",
        "Train QTRAN-base, QTRAN-alt, IQL, VDN, QMIX, Qatten, QPLEX, Weighted QMIX or ResQ on a cooperative game.",
        EXAMPLES,
        usage="%(prog)s --config=ALGORITHM --env-config=ENVIRONMENT [options] [with KEY=VALUE ...]",
    )
    p.add_argument(
        "--config",
        metavar="ALGORITHM",
        help="name of a file in src/config/algs, such as qtran_alt, or path of a YAML file",
    )
    p.add_argument(
        "--env-config",
        metavar="ENVIRONMENT",
        help="name of a file in src/config/envs, such as matrix_game, or path of a YAML file",
    )
    p.add_argument("--from", dest="from_", metavar="RUN_DIR", help="repeat this run; RUN_DIR may be its config.yaml")
    p.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="continue this run in its directory; --resume=latest: the newest run with the given configuration",
    )
    p.add_argument(
        "--strict", action="store_true", help="with --resume: refuse a state that another version or machine wrote"
    )
    p.add_argument("--status", metavar="PATH", help="show state and steps of the runs in or below this folder")
    p.add_argument("--list", action="store_true", help="show algorithms and environments, and which are installed")
    p.add_argument(
        "--explain", action="store_true", help="show each key: its value, who set it, who reads it; train nothing"
    )
    p.add_argument(
        "--profile", action="store_true", help="also write trace.json, a profile of ten rounds for ui.perfetto.dev"
    )
    p.add_argument("--version", action="store_true", help="show the version of this program and its commit")
    return p


def act(options: argparse.Namespace, words: list[str]) -> int:
    from utils import config as configuration
    from utils.args import ConfigError

    if options.version:
        print(f"qtran {version.VERSION}, commit {version.commit() or 'not known'}")
        return 0
    if options.list:
        return show_list()
    for flag, value in (("--resume", options.resume), ("--from", options.from_), ("--status", options.status)):
        if value == "":  # a variable of the shell that is not set
            raise ConfigError(f"{flag} is empty; give it a path, or leave it out")
    if options.status:
        from status import show_status

        return show_status(options.status)
    import resuming
    from parts import readers
    from run import launch, resume, resume_latest

    overrides = configuration.parse_overrides(words)
    latest = options.resume == "latest"
    if options.resume and options.profile:
        raise ConfigError("--profile works for new runs only; remove --resume")
    if options.resume and not latest:
        if options.config or options.env_config or options.from_:
            raise ConfigError(
                "--resume RUN_DIR takes the configuration of that run; remove --config, --env-config and --from"
            )
        if options.explain:
            config = resuming.changed_config(resuming.read_run(options.resume), overrides, readers)
            return show_explanation(configuration.explain(config))
        return resume(options.resume, overrides, options.strict)
    if options.strict and not latest:
        raise ConfigError("--strict works with --resume only; remove it, or add --resume RUN_DIR")
    if options.from_:
        if options.config or options.env_config:
            raise ConfigError(
                "--from PATH takes algorithm and environment of that run; remove --config and --env-config"
            )
        config = configuration.load_from(options.from_, overrides, readers)
    else:
        config = configuration.load(options.config, options.env_config, overrides, readers)
    if options.explain:
        return show_explanation(configuration.explain(config))
    return resume_latest(config, options.strict) if latest else launch(config, options.profile)


def show_list() -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from envs import env_class
    from utils import config_files
    from utils.args import ConfigError

    console = Console()
    table = Table("algorithm  (--config=)", "what it is")
    for name in config_files.names("algs"):
        table.add_row(name, Text(comment("algs", name)))
    console.print(table)
    table, absent = Table("environment  (--env-config=)", "what it is", "installed"), {}
    for name in config_files.names("envs"):
        try:
            env_class(config_files.environment_of(name)).check_installed()
            installed = "yes"
        except ConfigError as error:
            installed, absent[name] = "no", str(error)
        table.add_row(name, Text(comment("envs", name)), Text(installed))
    console.print(table)
    for name, why in absent.items():  # below the table, whose columns would cut the command that installs it
        print(f"{name}: {why}")
    return 0


def comment(kind: str, name: str) -> str:
    """What a file of the configuration says of itself, or why it cannot be read."""
    from utils import config_files
    from utils.args import ConfigError

    try:
        return config_files.first_comment(kind, name)
    except ConfigError as error:
        return str(error)


def show_explanation(rows: Sequence[Sequence[object]]) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("key", "value", "set by", "read by", "meaning")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
