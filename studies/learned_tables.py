"""What the runs of a study of matrix games learned, over seeds, from the tables.json that each run leaves.

python studies/learned_tables.py results/studies/fix_q_jt --out docs/reproduction/fix_q_jt.csv
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from utils import command
from utils.args import ConfigError
from utils.messages import brief

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


DETAILS = """\
of the finished runs in or below PATH, for each game and algorithm:

  pays                the payoff of the greedy joint action: how many seeds end at which
  gap                 how far the largest joint value stands above the second largest: Q'_jt, or Q_tot; none
                      where there is one joint action
  max |Q_jt - payoff| over all joint actions

each as the median over seeds, the smallest and the largest; of a game with several states the mean payoff, the
smallest gap and the largest error. IQL has no joint value.

exit status: 0 done; 2 bad input; 130 interrupted (Ctrl-C)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser("studies/learned_tables.py", "Sum up what was learned in matrix games.", DETAILS)
    p.add_argument("path", metavar="PATH", help="a folder that holds runs, such as results/studies/fix_q_jt")
    p.add_argument("--out", metavar="FILE", help="every run's figures, as CSV")
    return p


def act(options: argparse.Namespace) -> int:
    rows = learned(options.path)
    if options.out:
        write(Path(options.out), rows)
    tell(rows)
    return 0


def learned(path: str | Path) -> list[dict[str, Any]]:
    """One dict for each run: game, algorithm, seed and `tables.figures`. Runs are told apart as the report does."""
    from reporting import grouping
    from reporting.results import find_results
    from reporting.selection import check_paths

    check_paths([path])
    results, _ = find_results([path], grouping.JUDGED_BY)
    games = [result for result in results if (result.path / "tables.json").exists()]
    rows = [
        {"game": task, "algorithm": algorithm, "seed": entry.seed} | figures_of(entry.result.path / "tables.json")
        for task, algorithms in grouping.by_task(grouping.entries(games)).items()
        for algorithm, entries in algorithms.items()
        for entry in entries
    ]
    if not rows:
        raise ConfigError(
            f"{path}: no finished run left a tables.json; `python src/sweep.py` makes runs of matrix_game"
        )
    return rows


def figures_of(path: Path) -> dict[str, Any]:
    """`tables.figures` of a file; ConfigError where it is damaged."""
    from tables import figures, read_json

    tables = read_json(path)
    try:
        return figures(tables)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{path} is not as a run writes it: {brief(error)}") from error


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as f:
            table = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    except OSError as error:
        raise ConfigError(f"--out={path}: cannot be written: {error.strerror}; give --out FILE") from error
    print(f"written: {path}")


def tell(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("game", "algorithm", "seeds", "pays", "gap", "max |Q_jt - payoff|")
    for game, algorithm in dict.fromkeys((row["game"], row["algorithm"]) for row in rows):
        group = [row for row in rows if (row["game"], row["algorithm"]) == (game, algorithm)]
        paid = sorted(Counter(round(row["greedy_payoff"], 2) for row in group).items(), reverse=True)
        table.add_row(
            game,
            algorithm,
            str(len(group)),
            ", ".join(f"{payoff:g} in {count}" for payoff, count in paid),
            *(spread([row[name] for row in group]) for name in ("gap", "max_abs_q_jt_error")),
        )
    Console().print(table)


def spread(values: Sequence[Any]) -> str:
    """The median, the smallest and the largest; a dash where there is no such value."""
    return "–" if None in values else f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    sys.exit(main())
