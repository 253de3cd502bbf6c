"""Who may write in a run directory: real processes that race, die, freeze and come back."""

import errno
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from command import full_disk, wait_until

from utils.args import ConfigError
from utils.claim import ClaimLost, Held, holder, take

SRC = Path(__file__).parents[2] / "src"
HOST, PID = socket.gethostname(), os.getpid()
WORKER = f"""
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {str(SRC)!r})
from utils.args import ConfigError
from utils.claim import ClaimLost, Held, take

link = os.link

def take_at(folder, lease, at):
    "Take; make the link no sooner than `at`, unix seconds: others have looked as well by then."
    global claim
    def late(*words):
        while time.time() < at:
            pass
        link(*words)
    os.link = late
    claim = take(Path(folder), lease)
    return claim.run_id

def look():
    try:
        claim.look()
    except ClaimLost as error:
        return str(error)

def rename(name):
    Path("/proc/self/comm").write_text(name)

def release_in_a_child():
    child = os.fork()
    if not child:
        claim.release()
        os._exit(0)
    os.waitpid(child, 0)

def take_turns(folder, times):
    "Take, write alone, release: how often another one was there."
    marker, met = os.path.join(folder, "marker"), 0
    while times:
        try:
            claim = take(Path(folder))
        except Held:
            continue
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            time.sleep(.002)
            os.remove(marker)
        except OSError:
            met += 1
        claim.release()
        times -= 1
    return met

for line in sys.stdin:
    name, *words = json.loads(line)
    try:
        answer = globals()[name](*words)
    except ConfigError as error:
        answer = [type(error).__name__, str(error)]
    print(json.dumps(answer), flush=True)
"""


class Worker:
    """Another process, which calls the functions of WORKER."""

    def __init__(self):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, text=True)
        self.pid = self.process.pid

    def tell(self, name, *words):
        print(json.dumps([name, *map(_plain, words)]), file=self.process.stdin, flush=True)

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, *words):
        self.tell(*words)
        return self.answer()

    def kill(self):
        self.process.kill()
        self.process.wait()


def _plain(word):
    return str(word) if isinstance(word, Path) else word


@pytest.fixture
def start():
    """Starts Workers, and ends them."""
    workers = []
    yield lambda: workers.append(Worker()) or workers[-1]
    for worker in workers:
        worker.kill()
        worker.process.stdin.close()
        worker.process.stdout.close()


@pytest.fixture
def claim():
    """`take`, with the release of what it gave."""
    made = []
    yield lambda *words: made.append(take(*words)) or made[-1]
    for one in made:
        one.release()


def names(folder):
    return sorted(os.listdir(folder / "claims"))


def write(folder, number=1, age=0.0, **changes):
    """The claim file of a living process on another machine, renewed `age` seconds ago; changes: of its contents."""
    contents = dict(token=f"token{number}", host="elsewhere", boot="b", pid_namespace="n", pid=17, process_start=5)
    contents |= dict(lease_seconds=100.0, taken="2024-01-01T00:00:00+00:00", released=None) | changes
    return damage(folder, json.dumps(contents), number, age)


def damage(folder, text, number=1, age=0.0):
    """A claim file that holds `text`."""
    path = folder / "claims" / f"{number:06d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def this_machine(folder):
    """The contents of a claim of this process."""
    one = take(folder)
    contents = json.loads(one.path.read_text())
    one.release()
    shutil.rmtree(folder / "claims")
    return contents


def test_a_claim_and_what_its_file_says(tmp_path, claim):
    assert holder(tmp_path) is None
    one = claim(tmp_path, 30)
    contents = json.loads((tmp_path / "claims" / "000001.json").read_text())
    assert contents["token"] == one.run_id and contents["lease_seconds"] == 30 and contents["released"] is None
    assert (contents["host"], contents["pid"]) == (HOST, PID)
    assert datetime.fromisoformat(contents["taken"]).utcoffset().total_seconds() == 0
    assert one.mine() and one.look() is None and names(tmp_path) == ["000001.json"]
    seen = holder(tmp_path)
    assert (seen.host, seen.pid, seen.taken, seen.state) == (HOST, PID, contents["taken"], "alive")
    assert 0 <= seen.age_seconds < 5


def test_of_processes_that_start_at_once_one_gets_it(tmp_path, start):
    workers = [start() for _ in range(8)]
    dead = this_machine(tmp_path) | {"pid": start_and_end()}
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if attempt % 2:
            write(folder, **dead)
        at = time.time() + 0.15
        for worker in workers:
            worker.tell("take_at", folder, 100, at)
        answers = [worker.answer() for worker in workers]
        (winner,) = (w.pid for w, answer in zip(workers, answers) if isinstance(answer, str))
        losers = [answer for answer in answers if not isinstance(answer, str)]
        assert all(kind == "Held" and f"process {winner} on host {HOST}" in text for kind, text in losers)
        assert names(folder) == ["000001.json", "000002.json"][: 1 + attempt % 2]


def test_of_processes_that_take_turns_no_two_are_there_at_once(tmp_path, start):
    workers = [start() for _ in range(4)]
    for worker in workers:
        worker.tell("take_turns", tmp_path, 10)
    assert [worker.answer() for worker in workers] == [0] * 4
    assert names(tmp_path) == [f"{i + 1:06d}.json" for i in range(40)] and holder(tmp_path) is None


def start_and_end():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_is_replaced_at_once(tmp_path, start, claim, reaped):
    worker = start()
    run_id = worker.ask("take_at", tmp_path, 100, 0)
    worker.process.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))  # else its parent is yet to ask
    assert holder(tmp_path).state == "dead" and holder(tmp_path).pid == worker.pid
    assert claim(tmp_path).run_id == run_id and names(tmp_path) == ["000001.json", "000002.json"]


def test_a_frozen_holder_is_replaced_after_its_lease_and_learns_of_it(tmp_path, start, claim):
    worker = start()
    worker.ask("take_at", tmp_path, 0.8, 0)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(Held):
        claim(tmp_path)
    wait_until(lambda: holder(tmp_path).state == "frozen")
    one = claim(tmp_path)
    os.kill(worker.pid, signal.SIGCONT)
    for _ in range(2):
        lost = worker.ask("look")
        assert f"host {HOST}, pid {PID}" in lost and "longer than 0.8 s" in lost and str(tmp_path) in lost
    assert one.mine()


def test_a_living_holder_keeps_its_claim_by_renewing_it(tmp_path, start):
    worker = start()
    worker.ask("take_at", tmp_path, 0.8, 0)
    time.sleep(1.2)
    with pytest.raises(Held) as error:
        take(tmp_path, 0.1)
    message = str(error.value)
    assert all(part in message for part in (str(tmp_path), f"process {worker.pid} on host {HOST}", "stop it", "0.8 s"))
    assert error.value.holder.pid == worker.pid and error.value.holder.age_seconds < 0.8
    assert pickle.loads(pickle.dumps(error.value)).holder == error.value.holder
    assert worker.ask("look") is None and names(tmp_path) == ["000001.json"]


def test_a_taker_that_is_frozen_on_the_way_takes_nothing_from_a_living_one(tmp_path, start, monkeypatch):
    start().ask("take_at", tmp_path, 0.8, 0)
    renew = os.utime

    def slow(path):
        time.sleep(1)
        renew(path)
        time.sleep(1)

    monkeypatch.setattr("os.utime", slow)
    with pytest.raises(Held):
        take(tmp_path)


def test_one_process_holds_a_folder_once(tmp_path, claim):
    def attempt(_):
        try:
            return claim(tmp_path)
        except Held as error:
            assert f"process {PID}" in str(error)

    with ThreadPoolExecutor(8) as threads:
        assert sum(one is not None for one in threads.map(attempt, range(8))) == 1


def test_a_pipe_in_the_place_of_a_claim_is_not_waited_for(tmp_path, claim):
    (tmp_path / "claims").mkdir()
    os.mkfifo(tmp_path / "claims" / "000001.json")
    assert holder(tmp_path).host == "unknown"
    with pytest.raises(Held, match="damaged"):
        claim(tmp_path, 30)


def test_a_lease_may_be_longer_than_any_wait(tmp_path, claim):
    one = claim(tmp_path, 1e300)
    one._thread.join(0.2)
    assert one._thread.is_alive() and one.mine()


@pytest.mark.parametrize("lease", [0, -1, float("nan")])
def test_a_lease_lasts_some_time(tmp_path, lease):
    with pytest.raises(ConfigError, match="lease_seconds"):
        take(tmp_path, lease)


def test_a_claim_of_another_machine_counts_until_its_lease_is_over(tmp_path, claim):
    path = write(tmp_path, age=90)
    assert holder(tmp_path).state == "alive"
    with pytest.raises(Held, match="process 17 on host elsewhere .* 90.. s ago.* wait 100 s"):
        claim(tmp_path, 1)  # its own lease counts
    os.utime(path, (time.time() - 110,) * 2)
    assert holder(tmp_path).state == "dead" and holder(tmp_path).age_seconds == pytest.approx(110, abs=5)
    assert claim(tmp_path).run_id == "token1"


@pytest.mark.parametrize("changes", [{"boot": "b"}, {"pid_namespace": "n"}, {"boot": None}, {"host": "elsewhere"}])
def test_a_process_number_means_something_only_where_it_can_be_seen(tmp_path, changes):
    write(tmp_path, **this_machine(tmp_path) | {"pid": start_and_end()} | changes)
    with pytest.raises(Held):
        take(tmp_path)


def test_without_proc_only_the_lease_counts(tmp_path, claim, monkeypatch):
    monkeypatch.setattr("os.readlink", full_disk)
    path = write(tmp_path, **this_machine(tmp_path) | {"pid": start_and_end()})
    with pytest.raises(Held):
        take(tmp_path)
    os.utime(path, (time.time() - 150,) * 2)
    claim(tmp_path)


def test_a_process_number_that_is_another_process_now_is_a_dead_holder(tmp_path, claim):
    contents = this_machine(tmp_path)
    write(tmp_path, **contents | {"process_start": contents["process_start"] - 1})
    assert holder(tmp_path).state == "dead"
    claim(tmp_path)


def test_the_start_of_a_process_with_a_difficult_name(tmp_path, start, claim):
    worker = start()
    worker.ask("rename", "a) Z (b 1 ")
    worker.ask("take_at", tmp_path, 100, 0)
    with pytest.raises(Held):
        take(tmp_path)
    worker.kill()
    claim(tmp_path)


def test_a_released_folder_is_free(tmp_path, claim):
    one = claim(tmp_path)
    one.release()
    one.release()
    assert holder(tmp_path) is None and not one.mine() and names(tmp_path) == ["000001.json"]
    assert datetime.fromisoformat(json.loads(one.path.read_text())["released"]).utcoffset().total_seconds() == 0
    with pytest.raises(ClaimLost, match="has released"):
        one.look()
    two = claim(tmp_path)
    one.release()
    assert two.mine() and holder(tmp_path).pid == PID and names(tmp_path) == ["000001.json", "000002.json"]


def test_a_lost_claim_is_never_released_nor_regained(tmp_path, claim):
    one = claim(tmp_path, 100)
    newer = write(tmp_path, 2)
    with pytest.raises(ClaimLost, match=r"host elsewhere, pid 17\) has taken over .* longer than 100 s"):
        one.look()
    newer.unlink()
    assert not one.mine()
    one.release()
    assert json.loads(one.path.read_text())["released"] is None
    assert not issubclass(ClaimLost, Exception)


def test_a_newer_claim_that_cannot_be_read_counts_too(tmp_path, claim):
    one = claim(tmp_path)
    damage(tmp_path, "", 2)
    with pytest.raises(ClaimLost, match="host unknown, pid unknown"):
        one.look()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"token": "t", "host": "h", "pid": -1}', "\0" * 9, "[" * 60_000,
        '{"token": "t", "host": "h", "pid": 1, "lease_seconds": 1%s}' % ("0" * 400),
    ],
)  # fmt: skip
def test_a_damaged_claim_counts_until_the_lease_of_who_wants_it(tmp_path, claim, text):
    path = damage(tmp_path, text, age=20)
    with pytest.raises(Held, match="damaged"):
        claim(tmp_path, 30)
    assert (holder(tmp_path).host, holder(tmp_path).pid, holder(tmp_path).state) == ("unknown", None, "alive")
    one = claim(tmp_path, 10)
    one.release()
    assert path.read_text() == text
    assert claim(tmp_path).run_id == one.run_id == json.loads(one.path.read_text())["token"]


def test_every_process_that_ever_held_the_folder_has_the_same_run_id(tmp_path, start, claim):
    one = claim(tmp_path)
    one.release()
    worker = start()
    assert worker.ask("take_at", tmp_path, 100, 0) == one.run_id
    worker.kill()
    assert claim(tmp_path).run_id == one.run_id
    (tmp_path / "other").mkdir()
    assert claim(tmp_path / "other").run_id != one.run_id


@pytest.mark.parametrize("hours", [-9, 9])
def test_the_local_clock_does_not_matter(tmp_path, claim, monkeypatch, hours):
    real = time.time
    path = write(tmp_path, age=50)
    monkeypatch.setattr("time.time", lambda: real() + hours * 3600)
    with pytest.raises(Held) as error:
        take(tmp_path)
    assert error.value.holder.age_seconds == pytest.approx(50, abs=5)
    assert holder(tmp_path).age_seconds == pytest.approx(50, abs=5)
    os.utime(path, (real() - 110,) * 2)
    assert claim(tmp_path).mine()


def test_the_clock_of_the_file_server_counts(tmp_path, claim, monkeypatch):
    real, hours = os.utime, 9 * 3600
    path = write(tmp_path, age=hours + 50)

    def on_the_server(file, times=None):
        real(file, (time.time() - hours,) * 2)

    monkeypatch.setattr("os.utime", on_the_server)
    with pytest.raises(Held) as error:
        take(tmp_path)
    assert error.value.holder.age_seconds == pytest.approx(50, abs=5)
    assert holder(tmp_path).age_seconds == pytest.approx(50, abs=5)
    real(path, (time.time() - hours - 110,) * 2)
    one = claim(tmp_path)
    wait_until(lambda: one.path.stat().st_mtime < time.time() - hours / 2)
    assert holder(tmp_path).state == "alive"


@pytest.mark.parametrize("error", [FileExistsError(errno.EEXIST, "File exists"), OSError(errno.EIO, "I/O error")])
def test_a_link_that_was_made_counts_whatever_the_server_answered(tmp_path, claim, monkeypatch, error):
    link = os.link

    def without_answer(*words):
        link(*words)
        raise error

    monkeypatch.setattr("os.link", without_answer)
    assert claim(tmp_path).mine() and names(tmp_path) == ["000001.json"]
    with pytest.raises(Held):
        take(tmp_path)


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP])
def no_links(monkeypatch, request):
    def link(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("os.link", link)


def test_a_file_system_without_hard_links(tmp_path, claim, no_links):
    one = claim(tmp_path)
    with pytest.raises(Held, match=f"process {PID}"):
        take(tmp_path)
    one.release()
    assert claim(tmp_path).run_id == one.run_id and names(tmp_path) == ["000001.json", "000002.json"]


def test_a_taker_that_loses_a_race_looks_again(tmp_path, claim, monkeypatch):
    link, others = os.link, []

    def second(private, path):
        if not others:
            others.append(write(tmp_path, int(Path(path).stem), released="2024-01-01T00:00:00+00:00"))
        link(private, path)

    monkeypatch.setattr("os.link", second)
    one = claim(tmp_path)
    assert one.path.name == "000002.json" and one.run_id == "token1" and names(tmp_path)[-1] == one.path.name


def test_a_claim_that_is_released_while_it_is_read(tmp_path, claim, monkeypatch):
    fstat, one = os.fstat, claim(tmp_path)

    def stale(fd):
        if threading.current_thread() is not threading.main_thread():  # that of the claim reads too
            return fstat(fd)
        monkeypatch.setattr("os.fstat", fstat)
        one.release()
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("os.fstat", stale)
    assert claim(tmp_path).run_id == one.run_id


def test_a_full_disk_is_a_config_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ConfigError, match=f"{tmp_path}: .*No space left"):
        take(tmp_path)
    assert names(tmp_path) == [] and holder(tmp_path) is None


def test_a_claim_is_released_on_a_disk_without_room_for_another_file(tmp_path, claim, monkeypatch):
    """Else a process that lives on, as that of a notebook, would hold the folder until its lease is over."""
    one = claim(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full_disk)
        one.release()
    assert holder(tmp_path) is None and names(tmp_path) == ["000001.json"]
    assert claim(tmp_path).run_id == one.run_id


def test_a_claim_that_cannot_be_released_ends_with_its_lease(tmp_path, claim, monkeypatch):
    one = claim(tmp_path, 0.3)
    monkeypatch.setattr("os.replace", full_disk)
    monkeypatch.setattr("utils.claim._overwrite", full_disk)
    one.release()
    assert not one.mine() and names(tmp_path) == ["000001.json"]
    wait_until(lambda: holder(tmp_path).state == "frozen")
    assert claim(tmp_path).mine()


def test_a_full_disk_without_hard_links_leaves_the_number_taken(tmp_path, claim, no_links, monkeypatch):
    fsync, calls = os.fsync, []
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: calls.append(fd) or (fsync if len(calls) == 1 else full_disk)(fd))
        with pytest.raises(ConfigError, match="No space left"):
            take(tmp_path)
    assert names(tmp_path) == ["000001.json"]


def test_a_folder_that_is_not_there_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="absent"):
        take(tmp_path / "absent")
    assert holder(tmp_path / "absent") is None and not (tmp_path / "absent").exists()


def test_holder_where_this_process_may_not_write(tmp_path, monkeypatch):
    write(tmp_path, age=50)

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", read_only)
    seen = holder(tmp_path)
    assert seen.state == "alive" and seen.age_seconds == pytest.approx(50, abs=5)
    assert names(tmp_path) == ["000001.json"]


def test_holder_leaves_nothing_behind(tmp_path):
    assert holder(tmp_path) is None and list(tmp_path.iterdir()) == []
    write(tmp_path)
    (tmp_path / "claims" / "000002.json~").touch()  # somebody's editor
    assert holder(tmp_path).host == "elsewhere"
    assert names(tmp_path) == ["000001.json", "000002.json~"]


def test_who_deletes_the_claims_stops_their_holder(tmp_path, claim):
    one = claim(tmp_path, 0.3)
    shutil.rmtree(tmp_path / "claims")
    two = claim(tmp_path)
    wait_until(lambda: not one.mine())
    with pytest.raises(ClaimLost, match="deleted or moved"):
        one.look()
    one.release()
    assert two.mine() and holder(tmp_path).state == "alive"


def test_a_release_leaves_the_claim_of_another_in_its_place_alone(tmp_path, claim):
    one = claim(tmp_path)
    time.sleep(0.1)  # its thread looks, then waits
    shutil.rmtree(tmp_path / "claims")
    two = claim(tmp_path)
    one.release()
    assert one.path == two.path and two.mine() and holder(tmp_path).state == "alive"


def test_a_folder_that_was_deleted_is_released_without_an_error(tmp_path, claim):
    (tmp_path / "run").mkdir()
    one = claim(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    one.release()
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_stays_the_same_folder(tmp_path, claim, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = claim(Path("."), 0.3)
    monkeypatch.chdir("/")
    time.sleep(0.1)
    assert one.mine()
    write(tmp_path, 2)
    with pytest.raises(ClaimLost, match="elsewhere"):
        one.look()


def test_a_renewal_that_fails_is_tried_again(tmp_path, claim, monkeypatch):
    one = claim(tmp_path, 0.3)
    with monkeypatch.context() as patch:
        patch.setattr("os.utime", full_disk)
        wait_until(lambda: holder(tmp_path).state == "frozen")
    wait_until(lambda: holder(tmp_path).state == "alive")
    assert one.mine()


def test_the_thread_ends_with_the_claim(tmp_path, claim):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "claim"]

    one = claim(tmp_path, 0.3)
    assert len(threads()) == 1 and threads()[0].daemon
    one.release()
    assert threads() == []
    claim(tmp_path, 0.3)
    write(tmp_path, 3)
    wait_until(lambda: threads() == [])


def test_a_forked_child_cannot_release_it(tmp_path, start):
    worker = start()
    worker.ask("take_at", tmp_path, 100, 0)
    worker.ask("release_in_a_child")
    assert worker.ask("look") is None and holder(tmp_path).state == "alive"
