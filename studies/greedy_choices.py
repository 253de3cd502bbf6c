"""The picture of README.md: what several algorithms learned in one matrix game, and what they choose.

python studies/greedy_choices.py RUN_DIR [RUN_DIR ...] --out docs/greedy_choices.png

Reads the tables.json of runs of one two-agent matrix game. The first panel is the payoff. Each other one is the joint
value that a run's agents act by: the sum of their values with V_jt (QTRAN), or Q_tot.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from utils import command
from utils.args import ConfigError
from utils.messages import brief
from utils.yaml_file import read_yaml

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


DETAILS = """\
  python studies/greedy_choices.py RUN_DIR [RUN_DIR ...] --out docs/greedy_choices.png

exit status: 0 written; 2 bad input; 130 interrupted (Ctrl-C)
"""


def panel(run: Path) -> tuple[str, np.ndarray, tuple[int, int], dict[str, Any]]:
    """Title, joint values [A, A], greedy joint action and tables of a run. ConfigError where it has none."""
    from reporting.selection import check_paths
    from tables import read_json

    check_paths([run])
    if not (run / "tables.json").is_file():
        raise ConfigError(f"{run}: it has no tables.json; give the run directories of a matrix game")
    states, config = read_json(run / "tables.json"), read_yaml(run / "config.yaml")
    try:
        if len(states) > 1 or len(states[0]["q_i"]) != 2:
            raise ConfigError(f"{run}: only games of two agents with a single state can be drawn")
        if states[0]["q_jt"] is None:
            raise ConfigError(f"{run}: {config['name']} has no joint value; give runs of other algorithms")
        return drawn(config["name"], states[0])
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{run}: config.yaml or tables.json is not as a run writes it: {brief(error)}") from error


def drawn(name: str, tables: dict[str, Any]) -> tuple[str, np.ndarray, tuple[int, int], dict[str, Any]]:
    """The `panel` of an algorithm's tables of one game state."""
    from tables import action_names

    if tables["v_jt"] is None:
        values, symbol = np.array(tables["q_jt"]), "$Q_{tot}$"
    else:
        values, symbol = np.array(tables["q_prime"]) + tables["v_jt"], "$Q_1 + Q_2 + V_{jt}$"
    u_1, u_2 = tables["greedy_joint_action"]
    action = ", ".join(action_names(n)[u] for n, u in zip(values.shape, (u_1, u_2)))
    return f"{name}: {symbol}\nchooses ({action}): {tables['greedy_payoff']:g}", values, (u_1, u_2), tables


def draw(runs: Sequence[Path], out: Path) -> None:
    from matplotlib.figure import Figure

    from tables import action_names

    panels = [panel(run) for run in runs]
    payoff = np.array(panels[0][3]["payoff"])
    for run, (*_, tables) in zip(runs, panels):
        if tables["payoff"] != panels[0][3]["payoff"]:
            raise ConfigError(f"{runs[0]} and {run} are of different games; give runs of one")
    best = divmod(int(payoff.argmax()), payoff.shape[1])
    shown = [(f"payoff\nthe best: {payoff.max():g}", payoff, best), *(p[:3] for p in panels)]
    figure = Figure(figsize=(2.6 * len(shown), 3.5), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, (title, values, action) in zip(axes, shown):
        ax.imshow(values, cmap="viridis", vmin=payoff.min(), vmax=payoff.max())
        ax.set_title(title, fontsize=11)
        ax.set_xticks(range(values.shape[1]), action_names(values.shape[1]))
        ax.set_yticks(range(values.shape[0]), action_names(values.shape[0]))
        ax.set_xlabel("agent 2")
        ax.plot(action[1], action[0], "s", ms=34, mfc="none", mec="red", mew=2.5)
        for (i, j), v in np.ndenumerate(values):
            dark = v < (payoff.min() + payoff.max()) / 2
            ax.text(j, i, f"{v:.1f}".replace("-0.0", "0.0"), ha="center", va="center", color="w" if dark else "k")
    axes[0].set_ylabel("agent 1")
    try:
        figure.savefig(out, dpi=110)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture that matplotlib does not write
        raise ConfigError(f"--out={out}: cannot be written: {error}; give a PNG in a folder that is there") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    description = "Draw what several runs of a matrix game learned and choose."
    p = command.parser("studies/greedy_choices.py", description, DETAILS)
    p.add_argument("runs", metavar="RUN_DIR", type=Path, nargs="+", help="run directories of a matrix game")
    p.add_argument("--out", metavar="PNG", type=Path, required=True, help="where to write")
    return p


def act(options: argparse.Namespace) -> int:
    draw(options.runs, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
