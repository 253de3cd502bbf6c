"""bench/run.py: that each subcommand measures, and what it says of bad input. What the numbers are is not tested."""

import importlib.util
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command import ROOT, as_in_the_foreground, outcome, wait_until

sys.path.append(str(ROOT / "bench"))  # behind src, whose names it shares

from costs.machine import count
from costs.progress import Progress
from costs.sides import spread
from costs.sizes import Sizes, fields

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
PROGRAM = [sys.executable, str(ROOT / "bench" / "run.py")]
spec = importlib.util.spec_from_file_location("bench_run", ROOT / "bench" / "run.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)

NUMBER = r"\d+(?:\.\d+)? \(\d+(?:\.\d+)?–\d+(?:\.\d+)?\)"  # a median and its quartiles


ROWS = {
    "update --only alt uneven --repeats 1": rf"alt small uneven, 3 episodes \| {NUMBER} \| – \| – \| [\d.]+ \|",
    "act --only 8 --repeats 1": rf"8 environments \| {NUMBER} \| – \| – \|",
    "collect --updates": rf"max_staleness 0, with an update of 2s3z shapes a round \| {NUMBER} \| – \| – \| 1 \|",
    "train --only predator-prey": rf"predator-prey QMIX, .* \| {NUMBER} \| – \| – \| 50 \|",
    "memory": rf"small \| {NUMBER} \| – \| – \| 0 \| \d+ \|",
}


@pytest.fixture(scope="module")
def subcommands():
    """{words of ROWS: its process}: all at once, as their processes mostly import torch."""
    runs = {
        words: subprocess.Popen(
            [*PROGRAM, *words.split(), "--quick"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for words in ROWS
    }
    yield runs
    for run in runs.values():
        run.kill()
        run.wait()


@pytest.mark.parametrize("words", ROWS)
def test_each_subcommand_measures_ours_alone(words, subcommands):
    out, err = subcommands[words].communicate()
    assert subcommands[words].returncode == 0 and err == "" and re.search(ROWS[words], out), out + err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nonsense", "'nonsense' is none of the subcommands: update, act, collect, carry, train, memory, grow"),
        ("update --peer /nowhere", "--peer /nowhere: it is not there; give a checkout of EPyMARL"),
        ("update --peer {tmp}", "--peer {tmp}: none is in it; give a checkout of EPyMARL"),
        ("act --peer {starry}", "act measures nothing that MARL-Algorithms has; leave --peer out"),
        ("update --device cuda", "--device cuda: torch sees no GPU; give --device cpu"),
        ("update --with lr", "--with lr: not KEY=VALUE"),
        ("collect --sleep 3 1", "--sleep 3 1: give two numbers of milliseconds"),
        ("memory --minutes 3", "a run's words follow --"),
        ("update -- --config=qmix", "give --minutes, or leave them out"),
        ("grow --figure x.txt", "--figure x.txt: give a name that ends in .png, .svg or .pdf"),
    ],
)
def test_bad_input_is_one_message(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    starry = tmp_path / "starry"
    for file in ("policy/qtran_alt.py", "network/qtran_net.py"):
        (starry / file).parent.mkdir(parents=True, exist_ok=True)
        (starry / file).touch()
    ended = outcome(bench.main, capsys, words.format(tmp=tmp_path, starry=starry).split())
    assert ended.code == 2 and message.format(tmp=tmp_path) in ended.last_line and ended.err.count("\n") == 1, ended


def test_a_key_of_ours_that_is_none_is_bad_input(capsys):
    ended = outcome(bench.main, capsys, ["update", "--quick", "--only", "alt", "full", "--with", "gamm=0.9"])
    assert ended.code == 2 and "unknown key 'gamm'" in ended.err and "Traceback" not in ended.err


def test_ctrl_c_leaves_the_rows_that_are_measured_and_no_process():
    command = [*PROGRAM, "act", "--quick", "--repeats", "1"]
    mark = f"BENCH_TEST={uuid.uuid4()}"  # all that it starts has it too
    run = subprocess.Popen(["env", mark, *command], preexec_fn=as_in_the_foreground, **PIPES)
    out = ""
    while not out.startswith("| 1 environment |"):
        out = run.stdout.readline()
    run.send_signal(signal.SIGINT)
    _, err = run.communicate()
    assert run.returncode == 130
    assert err == "interrupted: the rows above are what was measured until then\n"
    # A process that it was just starting finds nobody at the other end of its pipe, and ends by itself.
    assert wait_until(lambda: not [path for path in Path("/proc").glob("[0-9]*/environ") if mark in environment(path)])


def environment(path):
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has just ended, or is not ours
        return ""


def test_lengths_fall_evenly_and_end_where_the_fields_say():
    size = Sizes(agents=2, actions=3, obs=4, state=5, steps=10, batch=4, shortest=4)
    assert size.lengths() == [10, 8, 6, 4]
    batch = fields(torch, size)
    assert (batch["filled"].sum(dim=(1, 2)) - 1).tolist() == size.lengths()
    assert batch["terminated"].squeeze(-1).argmax(dim=1).tolist() == [n - 1 for n in size.lengths()]
    assert not batch["obs"][1, 9:].any() and batch["obs"][1, 8].any() and not batch["reward"][1, 8:].any()


def test_the_floor_counts_products_and_moved_bytes():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    assert count(lambda: a @ b) == {"flops": 2 * 8 * 16 * 4, "bytes": 4 * (8 * 16 + 16 * 4 + 8 * 4)}
    assert count(lambda: a.t().view(4, 32)[1:] if a.t().is_contiguous() else a[2:])["bytes"] == 0  # views
    assert count(lambda: a.add_(1))["bytes"] == 4 * 2 * 8 * 16  # read and written


def test_a_run_is_timed_between_its_rounds_once_it_learns():
    class Replay:
        def insert_episode_batch(self, batch): ...

        def sample(self, n):
            return batch_of(3)

    def batch_of(steps):
        batch = SimpleNamespace(batch_size=1)
        return type("Batch", (dict,), vars(batch))(filled=torch.ones(1, steps + 1, 1))

    progress = Progress()
    progress.attach(Replay)
    replay = Replay()
    for steps, updates in ((5, 0), (6, 2), (7, 2), (8, 2)):
        replay.insert_episode_batch(batch_of(steps))
        for _ in range(updates):
            replay.sample(1)
    figures = progress.figures()
    assert {k: figures[k] for k in ("steps", "updates", "samples", "rounds")} == {
        "steps": 8, "updates": 2, "samples": 6, "rounds": 1,
    }  # fmt: skip


def test_spread_is_a_median_with_quartiles():
    assert spread([4, 1, 3, 2, 5]) == "3 (2–4)" and spread([2.0], 1) == "2.0 (2.0–2.0)" and spread([]) == "–"
