"""What was learned in a one-step matrix game, over every joint action: numbers, terminal, picture.

The layout is that of the paper's Table 1: Q_1 and Q_2 at the margins, Q'_jt, Q_jt and the payoff inside; actions are A,
B, C, the first agent's down the rows, the second's across the columns. The JSON file has actions as numbers from 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.episode_buffer import EpisodeBatch, Scheme
from utils.args import ConfigError
from utils.messages import brief
from utils.rundir import write_atomically
from utils.runs import read_json as read_any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.patches import Rectangle

    from components.running_stats import RunningStats
    from envs.games.matrix_game import MatrixGame
    from learners import Learner

MOST_JOINT_ACTIONS = 100_000  # beyond these, enumerating says little and costs much
MOST_VALUES = 100_000_000  # of all agents and actions at all joint actions: most of a minute
AT_ONCE = 500  # joint actions in one batch, whose size in memory does not depend on how many there are
MOST_PRINTED = 8  # rows or columns of a table in the terminal
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PAINTED = 10  # rows or columns of a heat map that has its numbers in it

Tables = dict[str, Any]  # of one game state, as `learned_tables` makes them


def learned_tables(
    env: MatrixGame, learner: Learner, scheme: Scheme, groups: dict[str, int], device: str
) -> list[Tables]:
    """One dict for each game state of a MatrixGame, or [] where there are too many joint actions.

    Keys: payoff, q_jt, q_prime [A_1, …, A_N]; q_i, a list of N lists; v_jt, a number; q_jt_heads, one
    table for each head of alt; greedy_joint_action, greedy_payoff, best_payoff. What an algorithm does
    not have is None. Values are in the units of the rewards that the learner sees.
    """
    if too_many(env.payoff):
        return []
    n_actions = env.payoff.shape[1:]
    joint = np.stack(np.meshgrid(*map(np.arange, n_actions), indexing="ij"), axis=-1).reshape(-1, len(n_actions))
    return [_one_state(env, learner, scheme, groups, device, s, joint) for s in range(env.n_states)]


def too_many(payoff: np.ndarray) -> bool:
    """Whether a payoff [S, A_1, …, A_N] has too many joint actions for tables."""
    n_actions = payoff.shape[1:]
    return payoff.size > MOST_JOINT_ACTIONS or payoff.size * len(n_actions) * max(n_actions) > MOST_VALUES


def _one_state(
    env: MatrixGame, learner: Learner, scheme: Scheme, groups: dict[str, int], device: str, s: int, joint: np.ndarray
) -> Tables:
    payoff = env.payoff[s]
    pieces = [
        _values(env, learner, scheme, groups, device, s, joint[i : i + AT_ONCE]) for i in range(0, len(joint), AT_ONCE)
    ]
    values = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    q = values["q"][0]  # [N, A]: a one-step game's values do not depend on the joint action
    q_i = [q[i, :a] for i, a in enumerate(payoff.shape)]
    greedy = tuple(int(q_of_agent.argmax()) for q_of_agent in q_i)
    tables = {
        "payoff": payoff.tolist(),
        "q_i": [q_of_agent.tolist() for q_of_agent in q_i],
        "q_jt": _shaped(values.get("q_jt"), payoff),
        "q_prime": _shaped(values["q_prime"], payoff),
        "v_jt": float(values["v_jt"][0, 0]) if "v_jt" in values else None,
        "greedy_joint_action": list(greedy),
        "greedy_payoff": float(payoff[greedy]),
        "best_payoff": float(payoff.max()),
    }
    if "q_jt_heads" in values:
        tables["q_jt_heads"] = [_shaped(head, payoff) for head in values["q_jt_heads"].T]
    return tables


def _values(
    env: MatrixGame, learner: Learner, scheme: Scheme, groups: dict[str, int], device: str, s: int, joint: np.ndarray
) -> dict[str, np.ndarray]:
    """The learner's values of some joint actions [B, N] in game state s: {name: [B, ...]}; of q the first row."""
    seen = env.observe_all_states()
    batch = EpisodeBatch(scheme, groups, len(joint), 2)
    fields = {"obs": seen.obs, "state": seen.state, "avail_actions": seen.avail}
    for t in (0, 1):  # what stands after the end of a game is not read
        batch.update({k: np.repeat(v[None, s], len(joint), axis=0) for k, v in fields.items()}, ts=t)
    batch.update({"actions": joint[..., None], "terminated": np.ones((len(joint), 1))}, ts=0)
    values = {k: v[:, 0].double().cpu().numpy() for k, v in learner.values(batch.to(device)).items()}
    stats = getattr(learner, "reward_stats", None)  # an algorithm of another project may have none
    if stats is not None:
        values = _in_reward_units(values, stats)
    q_prime = np.take_along_axis(values["q"], joint[..., None], axis=-1).sum(axis=(1, 2))
    return values | {"q": values["q"][:1], "q_prime": q_prime}


def _in_reward_units(values: dict[str, np.ndarray], stats: RunningStats) -> dict[str, np.ndarray]:
    """Undo the standardisation r ↦ (r - mean) / std of a one-step game's values.

    The mean belongs to whatever stands for a whole reward: Q_jt and V_jt, or the Q_i of IQL; where there
    is no V_jt it is shared out over the agents, so that Σ_i Q_i stays a reward.
    """
    mean, std = float(stats.mean), float(stats.std)
    shift = mean  # of the Q_i
    if "v_jt" in values:
        shift = 0.0
    elif "q_jt" in values:
        shift = mean / values["q"].shape[1]
    return {name: v * std + (shift if name == "q" else mean) for name, v in values.items()}


def _shaped(values: np.ndarray | None, payoff: np.ndarray) -> list | None:
    return None if values is None else np.reshape(values, payoff.shape).tolist()


def figures(states: list[Tables]) -> dict[str, float | None]:
    """What the tables of one run come to, as numbers: {name: number, or None where there is no such value}.

    states: the tables of each game state, drawn evenly. regret: what the greedy joint action pays less than the best,
    as a share of the range of payoffs; 0 where all pay the same. gap: how far the largest joint value (Q'_jt; of QMIX
    and its like Q_tot) stands above the second largest; None where there is one joint action. Of several states, the
    smallest gap and the largest error.
    """
    payoffs = [np.array(t["payoff"]) for t in states]
    greedy, best = (float(np.mean([t[name] for t in states])) for name in ("greedy_payoff", "best_payoff"))
    gap = largest = squared = None
    if states[0]["q_jt"] is not None:
        name = "q_jt" if states[0]["v_jt"] is None else "q_prime"
        joint = np.sort([np.ravel(t[name]) for t in states])  # [S, joint actions]
        if joint.shape[1] > 1:
            gap = float((joint[:, -1] - joint[:, -2]).min())
        errors = np.array([t["q_jt"] for t in states]) - payoffs
        largest, squared = float(np.abs(errors).max()), float((errors**2).mean())
    spread = float(np.ptp(payoffs))
    return {
        "greedy_payoff": greedy,
        "best_payoff": best,
        "regret": (best - greedy) / spread if spread else 0.0,
        "gap": gap,
        "max_abs_q_jt_error": largest,
        "mean_square_q_jt_error": squared,
    }


def read_json(path: str | Path) -> list[Tables]:
    """The tables of each game state, from the file that `write_json` wrote. ConfigError where it cannot be read."""
    try:
        tables = read_any(path)
        states = tables.get("states", [tables])
        if states and all(isinstance(state, dict) for state in states):
            return states
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {brief(error)}") from error
    raise ConfigError(f"{path} is not as a run writes it")


def write_json(tables: list[Tables], path: str | Path) -> None:
    """tables.json: the one state's tables, or {"states": [...]} where the game has several."""
    write_atomically(path, json.dumps(tables[0] if len(tables) == 1 else {"states": tables}, indent=1) + "\n")


def show(tables: list[Tables], console: Console) -> None:
    """Print the tables of a two-agent game; of a larger one, the greedy joint action."""
    for s, t in enumerate(tables):
        if len(tables) > 1:
            console.print(f"[bold]game state {s}[/bold]")
        greedy = tuple(t["greedy_joint_action"])
        named = ", ".join(action_names(max(map(len, t["q_i"])))[u] for u in greedy)
        if len(t["q_i"]) == 2 and max(map(len, t["q_i"])) <= MOST_PRINTED:
            names = [("payoff", "payoff"), ("q_jt", "Q_jt"), ("q_prime", "Q'_jt = Q_1 + Q_2")]
            matrices = [_matrix(t, name, title, greedy) for name, title in names if t[name] is not None]
            console.print(Columns(matrices, padding=(0, 3)))
        v_jt = "" if t["v_jt"] is None else f"V_jt {t['v_jt']:.2f}   "
        paid = f"pays {t['greedy_payoff']:g}; the best joint action pays {t['best_payoff']:g}"
        console.print(f"{v_jt}greedy joint action ({named}) {paid}")


def action_names(n: int) -> list[str]:
    """A, B, C, … as in the paper; numbers from 0 where there are more actions than letters."""
    return list(LETTERS[:n]) if n <= len(LETTERS) else [str(u) for u in range(n)]


def _matrix(tables: Tables, name: str, title: str, greedy: tuple[int, ...]) -> Table:
    """One table; Q_2(u_2) over the columns and Q_1(u_1) beside the rows of Q'_jt, as in the paper."""
    q_1, q_2 = tables["q_i"]
    margins = name == "q_prime"
    table = Table(title=title, title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("Q_1 \\ Q_2" if margins else "u_1 \\ u_2", style="cyan", no_wrap=True)
    rows, columns = action_names(len(q_1)), action_names(len(q_2))
    for u_2, q in zip(columns, q_2):
        head = f"{_number(q)} ({u_2})" if margins else u_2
        table.add_column(head, justify="right", header_style="cyan", no_wrap=True)
    for u_1, row in enumerate(tables[name]):
        cells = [Text(_number(v), style="bold green" if (u_1, u_2) == greedy else "") for u_2, v in enumerate(row)]
        table.add_row(f"{_number(q_1[u_1])} ({rows[u_1]})" if margins else rows[u_1], *cells)
    return table


def _number(value: float, digits: int = 2) -> str:
    """Fixed decimals, and no minus before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def draw(tables: list[Tables], path: str | Path, title: str) -> None:
    """A PNG: for two agents the tables as heat maps with Q_1 and Q_2 beside them, else Q against payoff."""
    from matplotlib.figure import Figure  # the import takes a second; no global state, no display

    rows = [(_two_agents if len(t["q_i"]) == 2 else _many_agents) for t in tables]
    figure = Figure(figsize=(15, 4 * len(tables)), layout="constrained")
    figure.suptitle(title, fontsize=14, parse_math=False)
    for sub, t, paint in zip(figure.subfigures(len(tables), 1, squeeze=False)[:, 0], tables, rows):
        paint(sub, t)
    figure.savefig(path, dpi=110)


def _two_agents(figure: SubFigure, t: Tables) -> None:
    payoff = np.array(t["payoff"])
    panels = [("payoff", payoff), ("$Q_{jt}$", t["q_jt"]), ("$Q'_{jt} = Q_1 + Q_2$", t["q_prime"])]
    panels = [(title, np.array(values)) for title, values in panels if values is not None]
    if t["v_jt"] is not None:
        panels.append((f"$Q'_{{jt}} + V_{{jt}}$   ($V_{{jt}}$ = {t['v_jt']:.2f})", np.array(t["q_prime"]) + t["v_jt"]))
    *axes, bars = figure.subplots(1, len(panels) + 1)
    lowest, highest = min(v.min() for _, v in panels), max(v.max() for _, v in panels)  # one scale for all
    image: Any = None
    for ax, (title, values) in zip(axes, panels):
        image = ax.imshow(values, cmap="viridis", vmin=lowest, vmax=highest)
        ax.set_title(title, pad=10)
        _label_actions(ax, values.shape)
        row, column = t["greedy_joint_action"]
        ax.add_patch(_frame(row, column))
        if max(values.shape) <= PAINTED:
            for (i, j), v in np.ndenumerate(values):
                ax.text(j, i, _number(v, 1), ha="center", va="center", color=_readable(image.to_rgba(v)))
    figure.colorbar(image, ax=axes, shrink=0.8, label="reward")
    paid = f"pays {t['greedy_payoff']:g}; the best pays {t['best_payoff']:g}"
    figure.suptitle(f"framed in red: the greedy joint action, {paid}", y=0.05)
    for i, q in enumerate(t["q_i"]):
        bars.bar(np.arange(len(q)) + 0.4 * i - 0.2, q, width=0.4, label=f"$Q_{i + 1}$")
    bars.set(title="individual values", xlabel="action")
    _few_ticks(bars.set_xticks, max(payoff.shape))
    bars.axhline(0, color="black", lw=0.8)
    bars.legend()


def _label_actions(ax: Axes, shape: tuple[int, ...]) -> None:
    """Agent 1's actions beside the rows, agent 2's above the columns, as in the paper."""
    ax.xaxis.set_label_position("top")
    ax.xaxis.tick_top()
    ax.set(xlabel="action of agent 2, $u_2$", ylabel="action of agent 1, $u_1$")
    ax.tick_params(length=0)
    _few_ticks(ax.set_yticks, shape[0])
    _few_ticks(ax.set_xticks, shape[1])


def _few_ticks(set_ticks: Callable[..., object], n: int) -> None:
    """The names of n actions, or of every so many where they would not have room."""
    every = -(-n // 14)
    set_ticks(range(0, n, every), action_names(n)[::every])


def _frame(row: int, column: int) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="red", linewidth=2.5)


def _readable(colour: Sequence[float]) -> str:
    """Black or white, the one that has more contrast with a colour (r, g, b, a) of 0..1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    light = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))
    return "black" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "white"


def _many_agents(figure: SubFigure, t: Tables) -> None:
    scatter, bars = figure.subplots(1, 2)
    payoff = np.ravel(t["payoff"])
    for name, label in (("q_jt", "$Q_{jt}$"), ("q_prime", "$Q'_{jt}$")):
        if t[name] is not None:
            scatter.plot(payoff, np.ravel(t[name]), ".", label=label)
    scatter.axline((payoff.min(), payoff.min()), slope=1, color="grey", lw=0.8)
    scatter.axvline(t["greedy_payoff"], color="red", lw=0.8, label=f"greedy pays {t['greedy_payoff']:g}")
    scatter.set(xlabel="payoff of a joint action", ylabel="learned value", title="every joint action")
    scatter.legend()
    width = 0.8 / len(t["q_i"])
    for i, q in enumerate(t["q_i"]):
        bars.bar(np.arange(len(q)) + i * width, q, width=width, label=f"$Q_{i + 1}$")
    bars.set(title="individual values", xlabel="action", ylabel="reward")
    _few_ticks(bars.set_xticks, max(map(len, t["q_i"])))
    bars.legend()
