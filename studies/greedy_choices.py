"""The picture of README.md: what several algorithms learned in one matrix game, and what they choose.

python studies/greedy_choices.py RUN_DIR [RUN_DIR ...] --out docs/greedy_choices.png

Reads the tables.json of runs of one two-agent matrix game. The first panel is the payoff. Each other one is the joint
value that a run's agents act by: the sum of their values with V_jt (QTRAN), or Q_tot.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import numpy as np
import yaml

from tables import action_names, read_json


def panel(run: Path) -> tuple[str, np.ndarray, tuple[int, int], dict[str, Any]]:
    """Title, joint values [A, A], greedy joint action and tables of a run."""
    tables = read_json(run / "tables.json")[0]
    name = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["name"]
    if tables["v_jt"] is None:
        values, symbol = np.array(tables["q_jt"]), "$Q_{tot}$"
    else:
        values, symbol = np.array(tables["q_prime"]) + tables["v_jt"], "$Q_1 + Q_2 + V_{jt}$"
    u_1, u_2 = tables["greedy_joint_action"]
    action = ", ".join(action_names(n)[u] for n, u in zip(values.shape, (u_1, u_2)))
    return f"{name}: {symbol}\nchooses ({action}): {tables['greedy_payoff']:g}", values, (u_1, u_2), tables


def draw(runs: list[Path], out: Path) -> None:
    from matplotlib.figure import Figure

    panels = [panel(run) for run in runs]
    payoff = np.array(panels[0][3]["payoff"])
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
    figure.savefig(out, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw what several runs of a matrix game learned and choose.")
    parser.add_argument("runs", metavar="RUN_DIR", type=Path, nargs="+", help="run directories of a matrix game")
    parser.add_argument("--out", metavar="PNG", type=Path, required=True, help="where to write")
    options = parser.parse_args(argv)
    draw(options.runs, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
