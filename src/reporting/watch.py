"""A report of runs that go on: which of them are not finished, how far they are, and a page that is renewed.

The page asks the browser to load it again after a while; no script is in it.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from reporting import figures, palette
from reporting.formats import metric_label, plain
from reporting.grouping import Entry
from reporting.html import page, picture, table
from reporting.layout import legend_of_lines, panels
from reporting.palette import STYLE
from utils.claim import holder
from utils.identity import JUDGED_BY
from utils.messages import count, duration
from utils.runs import folders, is_run

MOST_LISTED = 100  # runs in the table
FILES = ("metrics.jsonl", "summary.json")  # what a run writes as it goes on
CHARSET = '<meta charset="utf-8">'  # of a page, where the mark that renews it follows
STATES = ("running", "starting", "silent", "killed", "running, or killed", "interrupted", "failed", "taken over")


@dataclass
class Unfinished:
    """A run that is not finished. state: running (its process lives), silent (it lives, and does nothing), killed,
    interrupted, failed, …; left: seconds to its end at the speed that it had, None where that is not known."""

    entry: Entry
    state: str
    left: float | None

    @property
    def share(self) -> float | None:
        """Of its steps that are done."""
        t_max = self.entry.keys.get("t_max")
        return self.entry.result.t_env / t_max if isinstance(t_max, int) and t_max > 0 else None


def unfinished(entries: list[Entry]) -> list[Unfinished]:
    """Those of all runs that are not finished, and can be read."""
    out = []
    for e in entries:
        r = e.result
        if r.status == "finished" or not r.config:
            continue
        state, left = _state(e), None
        if state == "broken":
            continue
        t_max = e.keys.get("t_max")
        if state == "running" and r.t_env and r.wall_time_s and isinstance(t_max, int):
            left = max(0, t_max - r.t_env) * r.wall_time_s / r.t_env
        out.append(Unfinished(e, state, left))
    order = {state: k for k, state in enumerate(STATES)}
    return sorted(out, key=lambda u: (order.get(u.state, len(order)), u.entry.name, u.entry.task, str(u.entry.seed)))


def _state(e: Entry) -> str:
    status = e.result.status
    if e.result.source == "Sacred":
        return "running, or killed" if status == "running" else status
    if status not in ("running", "broken"):
        return status
    held = holder(e.result.path)
    if held is None or held.state == "dead":
        return "killed" if status == "running" else "broken"
    if status == "broken":  # it has no summary.json yet
        return "starting"
    return "silent" if held.state == "frozen" else "running"


class UnderWay:
    """What of some runs is not finished. not_begun: [(algorithm, environment, [seed])] of a study's runs."""

    def __init__(self, entries: list[Entry], not_begun: list[tuple[str, str, list]]):
        self.entries, self.not_begun = entries, not_begun
        self.runs = unfinished(entries)

    def sentence(self) -> str:
        """`7 of 10 runs finished; 2 running, 1 not begun`."""
        done = sum(e.result.status == "finished" for e in self.entries)
        states = Counter(u.state for u in self.runs)
        broken = len(self.entries) - done - len(self.runs)
        waiting = sum(len(seeds) for _, _, seeds in self.not_begun)
        told = [f"{n} {state}" for state, n in [*states.items(), ("broken", broken), ("not begun", waiting)] if n]
        rest = f"; {', '.join(told)}" if told else ""
        return f"{done} of {count(len(self.entries) + waiting, 'run')} finished{rest}"

    def page_part(self, metric: str | None) -> tuple[dict[str, bytes], str]:
        """({name: bytes} of the figure's files, HTML). metric: that was asked for."""
        figure, files, shown = curves(self.runs, metric), {}, ""
        if figure is not None:
            png, pdf = figures.save(figure)
            files, shown = {"under_way.png": png, "under_way.pdf": pdf}, picture("under_way", png, CAPTION)
        told = f"<p>{escape(self.sentence())}. Only finished runs are in the statistics.</p>"
        return files, told + self._table() + self._waiting() + shown

    def _table(self) -> str:
        rows = []
        for u in self.runs[:MOST_LISTED]:
            e, t_max = u.entry, u.entry.keys.get("t_max")
            steps = f"{e.result.t_env:,}" + (f" of {t_max:,}" if isinstance(t_max, int) else "")
            share = "–" if u.share is None else f"{100 * min(1, u.share):.0f} %"
            left = "–" if u.left is None else duration(u.left)
            rows.append([plain(e.name), e.task, "–" if e.seed is None else e.seed, u.state, steps, share, left])
        more = len(self.runs) - MOST_LISTED
        head = ["algorithm", "task", "seed", "state", "steps", "done", "time left"]
        below = f"<p>And {count(more, 'run')} more.</p>" if more > 0 else ""
        return table(head, rows, numbers=(2, 4, 5, 6)) + below if rows else ""

    def _waiting(self) -> str:
        rows = [
            [a, e, ", ".join(map(str, seeds[:20])) + (" …" if len(seeds) > 20 else "")]
            for a, e, seeds in self.not_begun
        ]
        return table(["not begun: algorithm", "environment", "seeds"], rows[:MOST_LISTED]) if rows else ""


CAPTION = "Runs that are not finished, as far as they are: each line is one run, and no average is taken."


def curves(runs: list[Unfinished], metric: str | None) -> Figure | None:
    """The tests of each run so far, a panel for each task; None where there are none. metric: that was asked for."""
    by_task = {}
    for u in runs:
        if u.state == "failed":  # it does not go on
            continue
        held = [name for name in ([metric] if metric else JUDGED_BY) if name in u.entry.result.series]
        if held:
            by_task.setdefault((u.entry.task, held[0]), []).append(u)
    if not by_task:
        return None
    style = palette.styles({u.entry.name for group in by_task.values() for u in group})
    figure, axes = panels(len(by_task), min(3, len(by_task)), 1.9)
    with matplotlib.rc_context(STYLE):
        for ax, ((task, name), group) in zip(axes, by_task.items()):
            for u in group:
                steps, values = u.entry.result.series[name]
                line = {k: v for k, v in style[u.entry.name].items() if k != "marker"}
                ax.plot(steps, values, label=u.entry.name, linewidth=0.9, **line)
                ax.plot(steps[-1], values[-1], style[u.entry.name]["marker"], color=line["color"], markersize=3)
            ax.set_title(plain(task))
            ax.set_xlabel("environment steps")
            ax.set_ylabel(plain(metric_label(name)))
            ax.locator_params(axis="x", nbins=4)
        legend_of_lines(figure, axes, style, columns=3, most=8)
    return figure


# ---- renewed


def reloading(html: str, seconds: float) -> str:
    """The page, loaded again by the browser each so many seconds."""
    return html.replace(CHARSET, f'{CHARSET}<meta http-equiv="refresh" content="{max(1, round(seconds))}">', 1)


class Live:
    """A page that is renewed each so many seconds. said: of its runs; first: whether nothing was written yet."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.seconds, self.said, self.first = path, seconds, "", True

    def end(self) -> None:
        """Have the browser load the page no more."""
        with suppress(OSError):
            mark = reloading(CHARSET, self.seconds).encode()
            self.path.write_bytes(self.path.read_bytes().replace(mark, CHARSET.encode(), 1))


def page_of_none(title: str, section: str) -> str:
    """The page where no run is finished yet. section: HTML, of those that go on."""
    summary = "<p>No run is finished yet that counts. The comparison comes with the first.</p>"
    return page(title, summary, [], [("under-way", "Not finished", section)])


def fingerprint(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """{file: (size, time of its last change)} of what runs in or below `paths` write as they go on."""
    out = {}
    for folder, names, below in folders(*paths):
        if is_run(names) or "run.json" in names:
            below.clear()
            for name in names & {*FILES, "run.json", "metrics.json"}:
                try:
                    status = (folder / name).stat()
                except OSError:  # it is gone since
                    continue
                out[str(folder / name)] = status.st_size, status.st_mtime_ns
    return out


def keep_up(renew: Callable[[], str], paths: list[Path], seconds: float) -> None:
    """Call renew() now and again, at most each so many seconds, whenever a run has written something, and print the
    sentence that it returns. Ends by Ctrl-C alone."""
    seen = None
    while True:
        began = time.monotonic()
        now = fingerprint(paths)
        if now != seen:
            seen = now
            print(f"{time.strftime('%H:%M:%S')} {renew()}", flush=True)
        took = time.monotonic() - began
        time.sleep(max(seconds - took, took))  # at least half of the time is left to the runs
