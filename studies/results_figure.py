"""The figure of docs/results.md: each algorithm's return at the end, as a share of the best possible one.

python studies/results_figure.py docs/results.png

Reads the tables beside docs/reproduction.md and docs/smax.md, and bench/matrix_seeds.json.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from envs import score_range
from reporting.palette import FIXED, STYLE
from reporting.statistics import iqm, iqm_interval
from utils import command
from utils.args import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


DETAILS = """\
  python studies/results_figure.py docs/results.png

exit status: 0 written; 2 bad input; 130 interrupted (Ctrl-C)
"""
ROOT = Path(__file__).resolve().parents[1]
Bar = tuple[float, float, float]  # interquartile mean, lower and upper end of its interval
ALGORITHMS = ("qtran_alt", "qtran_base", "qmix", "vdn")


class Game(NamedTuple):
    """A row of the figure. env, env_args: the game that its runs play; of battles (None) the share won counts."""

    label: str
    file: str
    task: str
    env: str | None = None
    env_args: dict[str, Any] = {}

    @property
    def best(self) -> float:
        """The return of the best joint policy."""
        known = (0.0, 1.0) if self.env is None else score_range(self.env, self.env_args)
        assert known is not None, f"{self.env} with {self.env_args} declares no best return"
        return known[1]


MATRIX, PREY = "reproduction/matrix_21x21_final.csv", "reproduction/predator_prey_final.csv"
SQUEEZE, UNIFORM = "reproduction/squeeze_final.csv", "reproduction/squeeze_uniform_final.csv"
SHORT = "reproduction/squeeze_short_final.csv"
GAMES = (
    Game("21×21 game", MATRIX, "qtran_21x21", "matrix_game", {"key": "qtran_21x21"}),
    Game("predator-prey, P = 0.5", PREY, "predator_prey penalty=0.5", "predator_prey", {"penalty": 0.5}),
    Game("predator-prey, P = 1.0", PREY, "predator_prey penalty=1.0", "predator_prey", {"penalty": 1.0}),
    Game("predator-prey, P = 1.5", PREY, "predator_prey penalty=1.5", "predator_prey", {"penalty": 1.5}),
    Game("squeeze, one peak, 10,000 steps", SHORT, "gaussian_squeeze k=1", "gaussian_squeeze", {"k": 1}),
    Game("squeeze, two peaks, 10,000 steps", SHORT, "gaussian_squeeze k=2", "gaussian_squeeze", {"k": 2}),
    Game("squeeze, one peak, 160,000 steps", SQUEEZE, "gaussian_squeeze k=1", "gaussian_squeeze", {"k": 1}),
    Game("squeeze, two peaks, 160,000 steps", SQUEEZE, "gaussian_squeeze k=2", "gaussian_squeeze", {"k": 2}),
    Game("squeeze, two peaks, uniform play", UNIFORM, "gaussian_squeeze", "gaussian_squeeze", {"k": 2}),
    Game("SMAX 3m", "smax/3m_final.csv", "3m"),
    Game("SMAX 2s3z", "smax/2s3z_final.csv", "2s3z"),
    Game("SMAX 5m_vs_6m", "smax/5m_vs_6m_final.csv", "5m_vs_6m"),
)
FIRST = "3×3 game"  # its runs are in bench/matrix_seeds.json
FIRST_BEST = 8


def shares() -> dict[str, dict[str, Bar]]:
    """{game: {algorithm: its Bar, in shares of the best return}}."""
    seeds = json.loads((ROOT / "bench" / "matrix_seeds.json").read_text())
    out: dict[str, dict[str, Bar]] = {FIRST: {}}
    for a in ALGORITHMS:
        paid = np.array([run["greedy_payoff"] / FIRST_BEST for run in seeds[a]])
        lower, upper = iqm_interval(paid)
        out[FIRST][a] = float(iqm(paid)), float(lower), float(upper)
    for game in GAMES:
        with open(ROOT / "docs" / game.file, newline="", encoding="utf-8") as file:
            rows = {row["algorithm"]: row for row in csv.DictReader(file) if row["task"] == game.task}
        best = game.best
        scale = {a: {name: float(rows[a][name]) / best for name in ("iqm", "lower", "upper")} for a in ALGORITHMS}
        out[game.label] = {a: (x["iqm"], x["lower"], x["upper"]) for a, x in scale.items()}
    return out


def draw(path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    found = shares()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        ax = figure.subplots()
        for row, values in enumerate(found.values()):
            for k, a in enumerate(ALGORITHMS):
                mean, low, high = values[a]
                y = row + 0.17 * (k - 1.5)
                ax.plot([low, high], [y, y], color=FIXED[a], lw=2, solid_capstyle="butt")
                ax.plot(mean, y, "osD^"[k], color=FIXED[a], ms=5, label=a if row == 0 else None)
        ax.set_yticks(range(len(found)), list(found))
        ax.set(xlim=(-0.15, 1.04), xlabel="return at the end, as a share of the best possible return")
        ax.axvline(1, color="black", lw=0.8)
        ax.invert_yaxis()
        figure.legend(loc="outside upper center", ncols=len(ALGORITHMS), frameon=False)
        try:
            figure.savefig(path, dpi=160)
        except (OSError, ValueError) as error:  # ValueError: a kind of picture that matplotlib does not write
            raise ConfigError(f"{path}: cannot be written: {error}; give a PNG in a folder that is there") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser("studies/results_figure.py", "Draw the figure of docs/results.md.", DETAILS)
    p.add_argument("path", metavar="PNG", type=Path, help="where to write")
    return p


def act(options: argparse.Namespace) -> int:
    draw(options.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
