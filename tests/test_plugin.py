"""plugin.py: QTRAN into a checkout and out again. The checkouts are our own small ones (stand_in_host.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import CONFIG, ROOT, outcome
from stand_in_host import LAYOUTS, commit, make, state

import plugin
from hosts import check, manifest, plan

LEARNERS = "src/learners/__init__.py"
QTRAN = "src/learners/qtran_learner.py"


@pytest.fixture
def host(tmp_path):
    return make(tmp_path / "host", "PyMARL", git=True)


@pytest.fixture
def run(capsys):
    return lambda *words: outcome(plugin.main, capsys, words)


@pytest.fixture(autouse=True)
def starts(request, monkeypatch):
    """Checkouts start; a test that asks for `starts_really` finds out, by importing torch each time."""
    if "starts_really" not in request.fixturenames:
        monkeypatch.setattr(check, "first_error", lambda root: None)


@pytest.fixture
def starts_really():
    pass


def test_a_disk_that_is_full_in_the_middle(host, run, monkeypatch):
    """What was there before is brought back; where there is no room for that either, the message says so, and what
    helps."""
    before, write, left = state(host), manifest._write, [0]  # left: files that are there already and can be written

    def full(path, content):
        left[0] -= path.exists()
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(manifest, "_write", full)
    said = run("install", host)
    assert said.code == 2 and "the checkout is as it was without the plugin" in said.err and state(host) == before
    left[0] = 1

    def no_room(*paths, copy=manifest.shutil.copy2):
        if str(paths[1]).endswith(".partial"):
            raise OSError(28, "No space left on device")
        return copy(*paths)

    monkeypatch.setattr(manifest.shutil, "copy2", no_room)
    said = run("install", host)
    assert said.code == 2 and f"make room, then: python src/plugin.py uninstall {host}" in said.err
    assert state(host) != before
    monkeypatch.undo()
    assert run("uninstall", host).code == 0 and state(host) == before


# ---- in and out


@pytest.mark.parametrize("games", [[], ["--with-games"]])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_uninstall_brings_the_tree_back(layout, games, tmp_path, run):
    host = make(tmp_path / "host", layout, git=True)
    (host / LEARNERS).chmod(0o640)
    before = state(host)
    assert run("install", host, *games).code == 0
    during = state(host)
    assert during != before
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], cwd=host, check=True)  # leaves __pycache__
    assert during[LEARNERS][1] == before[LEARNERS][1]
    undone = run("uninstall", host)
    assert undone.code == 0 and "as it was" in undone.out
    assert state(host) == before
    assert not list(host.rglob("*qtran_loss*"))


def test_files_go_in_byte_for_byte(host, run):
    run("install", host, "--with-games")
    for name in plan.PLUGIN:
        assert (host / "src" / name).read_bytes() == (ROOT / "src" / name).read_bytes()
    for source, target in plan.GAMES.items():
        assert (host / "src" / target).read_bytes() == (ROOT / "src" / source).read_bytes()


def test_the_same_twice_changes_nothing(host, run):
    run("install", host)
    before = state(host)
    again = run("install", host)
    assert again.code == 0 and "nothing to do" in again.out
    assert "is installed, this version" in run("check", host).out
    assert state(host) == before


def test_games_can_come_later_and_stay(host, run):
    before = state(host)
    run("install", host)
    run("install", host, "--with-games")
    with_games = state(host)
    assert (host / "src/envs/qtran_matrix_game.py").is_file()
    run("install", host)
    assert state(host) == with_games
    run("uninstall", host)
    assert state(host) == before


@pytest.mark.parametrize("act", ["install", "uninstall"])
def test_a_dry_run_says_all_and_does_nothing(act, host, run):
    if act == "uninstall":
        run("install", host, "--with-games")
    before = state(host)
    dry = run(act, host, "--dry-run", "--with-games")
    assert dry.code == 0 and dry.out.endswith("dry run: nothing was changed\n")
    assert state(host) == before
    wet = run(act, host, "--with-games")
    assert dry.out.splitlines()[:-1] == wet.out.splitlines()[:-1]
    after = state(host)
    differ = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    files = {path for path in differ if not path.startswith(manifest.STORE) and before.get(path, after.get(path))}
    assert files == {line.split()[1] for line in dry.out.splitlines() if " src/" in line}


def test_lines_end_as_the_tree_has_them(host, run):
    path = host / LEARNERS
    path.write_bytes(path.read_bytes().rstrip().replace(b"\n", b"\r\n"))
    commit(host)
    before = state(host)
    assert run("install", host).code == 0
    content = path.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") and b"QTranLearner" in content
    run("uninstall", host)
    assert state(host) == before


# ---- the host's own QTRAN


def test_the_trees_own_qtran_stays_within_reach(host, run):
    """Its file is kept, its importers are pointed there, and `qtran_arch` in the configuration chooses it."""
    (host / "src/learners/other.py").write_text(
        "from learners.qtran_learner import QLearner as A\nfrom .qtran_learner import QLearner as B\n"
        "from modules.mixers.qtran import QTranBase\n"
    )
    own = (host / QTRAN).read_bytes()
    commit(host)
    assert run("install", host).code == 0
    kept = (host / "src/learners/host_qtran_learner.py").read_bytes()
    assert kept == own.replace(b"from modules.mixers.qtran import", b"from modules.mixers.host_qtran import")
    code = """
from types import SimpleNamespace
import learners, learners.other as other
import learners.host_qtran_learner as own, modules.mixers.host_qtran as own_mixer
assert other.A is other.B is own.QLearner and other.QTranBase is own_mixer.QTranBase
for args in (SimpleNamespace(), SimpleNamespace(qtran_arch="qtran_paper")):
    try:
        learners.REGISTRY["qtran_learner"](None, None, None, args)
    except Exception as error:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        print(type(error).__name__)
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=host / "src", capture_output=True, text=True)
    assert said.stdout.split() == ["ConfigError", "AttributeError"], said.stderr


@pytest.mark.parametrize("line", ["import learners.qtran_learner", "from learners import qtran_learner as q"])
def test_an_import_that_cannot_be_pointed_elsewhere_is_refused(line, host, run):
    (host / "src/learners/other.py").write_text(f"{line}\n")
    commit(host)
    before = state(host)
    refused = run("install", host)
    assert refused.code == 2 and line in refused.err and "src/learners/other.py" in refused.err
    assert "from learners.qtran_learner import" in refused.err
    assert state(host) == before


def test_a_name_that_is_taken_is_refused(host, run):
    (host / "src/learners/host_qtran_learner.py").write_text("")
    commit(host)
    refused = run("install", host)
    assert refused.code == 2 and "src/learners/host_qtran_learner.py" in refused.err


# ---- trees in a state


def test_uncommitted_changes_are_not_touched(host, run):
    (host / QTRAN).write_text("# mine\n")
    (host / "src/main.py").write_text("# not touched by the plugin\n")
    before = state(host)
    refused = run("install", host)
    assert refused.code == 2 and QTRAN in refused.err and "commit" in refused.err and "main.py" not in refused.err
    assert state(host) == before


def test_a_tree_without_git_is_taken_as_it_is(tmp_path, run):
    assert run("install", make(tmp_path / "host", "PyMARL")).code == 0


@pytest.mark.parametrize("act", ["install", "uninstall"])
@pytest.mark.parametrize("file", [QTRAN, LEARNERS])  # the plugin's own file; its lines in one of the tree's files
def test_changes_that_would_be_lost_are_refused(file, act, host, run, monkeypatch):
    run("install", host)
    text = (host / file).read_text()
    (host / file).write_text(text.replace("_PluginQTran", "Mine").replace("QTranLearner", "Mine"))
    monkeypatch.setattr(plan, "version", lambda: "newer")
    before = state(host)
    refused = run(act, host)
    assert refused.code == 2 and file in refused.err and ".qtran_plugin/backup" in refused.err
    assert state(host) == before
    assert file in run("check", host).out


def test_an_edited_file_that_was_deleted_is_told_of(host, run):
    run("install", host)
    (host / LEARNERS).rename(host / "learners")
    refused = run("uninstall", host)
    assert refused.code == 2 and LEARNERS in refused.err, refused.err
    (host / "learners").rename(host / LEARNERS)
    assert run("uninstall", host).code == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_changed_beside_the_plugins_lines_stays(layout, tmp_path, run, monkeypatch):
    """After an upgrade and after the uninstall; the tree's imports are its own again."""
    host = make(tmp_path / "host", layout, git=True)
    own = {file: (host / file).read_text() for file in (LEARNERS, "src/envs/__init__.py")}
    run("install", host, "--with-games")
    for file in own:
        text = (host / file).read_text()
        (host / file).write_text(f"# mine, above\n{text}# mine, below\n")
    assert "nothing to do" in run("install", host, "--with-games").out
    monkeypatch.setattr(plan, "version", lambda: "newer")
    assert run("install", host).code == 0
    assert all("# mine, below" in (host / file).read_text() for file in own)
    done = run("uninstall", host)
    assert done.code == 0 and "but for what was changed since" not in done.out
    for file, text in own.items():
        assert (host / file).read_text() == f"# mine, above\n{text}# mine, below\n"


def test_an_uninstall_keeps_what_was_changed_since(host, run):
    own = (host / LEARNERS).read_text()
    run("install", host)
    with open(host / LEARNERS, "a") as f:
        f.write("# mine\n")
    done = run("uninstall", host)
    assert done.code == 0 and "but for what was changed since" in done.out
    assert (host / LEARNERS).read_text() == own + "# mine\n"


def test_an_older_copy_is_upgraded(host, run, tmp_path, monkeypatch):
    """Another version of the files, with one file more, is taken out before this one goes in."""
    before = state(host)
    run("install", host)
    new = state(host)
    run("uninstall", host)
    old = tmp_path / "old"
    for name in (*plan.PLUGIN, *plan.GAMES, "learners/gone.py"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        content = (plan.HERE / name).read_bytes() if (plan.HERE / name).exists() else b""
        (old / name).write_bytes(content + b"# Plugin file: old\n")
    with monkeypatch.context() as m:
        m.setattr(plan, "HERE", old)
        m.setattr(plan, "PLUGIN", (*plan.PLUGIN, "learners/gone.py"))
        assert run("install", host).code == 0
    assert (host / "src/learners/gone.py").exists()
    assert "another version" in run("check", host).out
    upgraded = run("install", host)
    assert upgraded.code == 0 and "takes out version" in upgraded.out
    assert state(host) == new
    run("uninstall", host)
    assert state(host) == before


@pytest.mark.parametrize("change", [b"", b"# older\n"])
def test_a_copy_made_by_hand_is_told_of(change, host, run):
    path = host / "src/learners/qtran_loss.py"
    path.write_bytes((ROOT / "src/learners/qtran_loss.py").read_bytes() + change)
    commit(host)
    refused = run("install", host)
    assert refused.code == 2 and "qtran_loss.py" in refused.err
    assert ("of another version" in refused.err) == bool(change)


# ---- failures in the middle


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [0, 1, 5, 12])
def test_a_failing_write_leaves_the_tree_as_it_was(at, error, host, run, monkeypatch):
    before = state(host)
    write, done = manifest._write, []

    def failing(path, content):
        if len(done) == at:
            raise error
        done.append(path)
        write(path, content)

    monkeypatch.setattr(manifest, "_write", failing)
    failed = run("install", host)
    if isinstance(error, OSError):
        assert failed.code == 2 and "Permission denied" in failed.err and len(failed.err.splitlines()) == 1
    else:
        assert failed.code == 130
    assert state(host) == before


@pytest.mark.parametrize("at", [1, 5, 12])
@pytest.mark.parametrize("act", ["install", "uninstall"])
def test_a_killed_install_is_mended(act, at, host, run, monkeypatch):
    before = state(host)
    write, done = manifest._write, []

    def killed(path, content):
        if len(done) == at:
            raise KeyboardInterrupt
        done.append(path)
        write(path, content)

    with monkeypatch.context() as m:
        m.setattr(manifest, "_write", killed)
        m.setattr(manifest, "restore", lambda *_: None)  # as SIGKILL
        assert run("install", host).code == 130
    assert state(host) != before
    assert run(act, host).code == 0
    if act == "install":
        assert run("check", host).out.count("changed since") == 0
        assert manifest.complete(host, manifest.read(host))
        run("uninstall", host)
    assert state(host) == before


def test_a_store_that_cannot_be_made(host, run):
    (host / manifest.STORE).write_text("a file")
    before = state(host)
    failed = run("install", host)
    assert failed.code == 2 and manifest.STORE in failed.err
    assert state(host) == before


def test_damaged_backups_stop_everything(host, run):
    run("install", host)
    (host / manifest.STORE / "backup" / LEARNERS).write_text("damaged")
    before = state(host)
    for act in ("install", "uninstall"):
        refused = run(act, host)
        assert refused.code == 2 and f"backup/{LEARNERS}" in refused.err
    (host / manifest.STORE / "manifest.json").write_text("{")
    assert "manifest.json is damaged" in run("uninstall", host).err
    assert (host / QTRAN).read_bytes() == before[QTRAN][0]


def test_symbolic_links_are_not_written_through(host, run):
    (host / "mine.py").write_bytes((host / QTRAN).read_bytes())
    (host / QTRAN).unlink()
    (host / QTRAN).symlink_to(host / "mine.py")
    commit(host)
    refused = run("install", host)
    assert refused.code == 2 and QTRAN in refused.err and "link" in refused.err


# ---- what is no host


def test_what_is_no_checkout_is_told(host, tmp_path, run):
    (tmp_path / "empty").mkdir()
    for path, says in {
        tmp_path / "nowhere": "does not exist",
        host / "src/main.py": "is a file",
        host / "src": "the folder above it",
        ROOT: "this project itself",
        tmp_path / "empty": "no src/main.py",
    }.items():
        for act in ("check", "install", "uninstall"):
            refused = run(act, path)
            assert refused.code == 2 and says in refused.err, refused.err


def test_a_host_that_the_plugin_does_not_fit_is_told_each_reason(host, run):
    mac = host / "src/controllers/basic_controller.py"
    mac.write_text(mac.read_text().replace("hidden_states", "memory"))
    (host / "src/components/episode_buffer.py").unlink()
    commit(host)
    refused = run("install", host)
    assert refused.code == 2
    assert "self.hidden_states" in refused.err and "no src/components/episode_buffer.py" in refused.err


def test_uninstall_without_an_install(host, run):
    refused = run("uninstall", host)
    assert refused.code == 2 and "manifest.json" in refused.err


# ---- check


@pytest.mark.parametrize(
    "layout, says", [("EPyMARL", "EPyMARL with gymnasium"), ("PyMARL2", "PyMARL2"), ("PyMARL", "PyMARL")]
)
def test_check_says_what_it_is(layout, says, tmp_path, run, monkeypatch, starts_really):
    monkeypatch.setattr(check, "installed", lambda module: True)
    host = make(tmp_path / "host", layout, git=True)
    before = state(host)
    checked = run("check", host)
    assert checked.code == 0 and f"{host}: {says}, at commit" in checked.out, checked.out
    assert "not installed; it fits" in checked.out and "it starts in this Python" in checked.out
    assert state(host) == before


MAIN = "import collections\nx = yaml.load(f)\ny = collections.Mapping\n"
MENDED = "import collections.abc\nx = yaml.safe_load(f)\ny = collections.abc.Mapping\n"
ENVS = "REGISTRY = {}\nfrom .smaclite_wrapper import X\nfrom smac.env import Y\n"


@pytest.fixture
def faulty(host, monkeypatch):
    """A host with the faults of the old ones, where nothing that it needs is installed."""
    monkeypatch.setattr(check, "installed", lambda module: module in ("numpy", "yaml", "sacred", "pkg_resources"))
    monkeypatch.setattr(check, "version", {"setuptools": (82, 0), "pyyaml": (6, 0), "torch": (2, 1)}.get)
    (host / "src/main.py").write_text(MAIN)
    (host / "src/envs/__init__.py").write_text(ENVS)
    (host / "src/envs/gymma.py").write_text("import gym\n")
    (host / "src/components/action_selectors.py").write_text("from matplotlib.pyplot import xcorr\n")
    return host


def test_check_names_what_is_missing_and_the_line_that_mends_it(faulty, run, starts_really):
    commit(faulty)
    checked = run("check", faulty)
    assert checked.code == 1 and "it does not start in this Python" in checked.out
    fixes = [line for line in checked.out.splitlines() if line.startswith("    ")]
    for word in (
        "safe_load",
        "collections.abc",
        "smaclite",
        "oxwhirl/smac",
        "gym==0.21.0",
        "matplotlib",
        "setuptools<82",
    ):
        assert sum(word in fix for fix in fixes) == 1, (word, checked.out)
    assert "torch 2.4 or later" in checked.out and "torch==2.13.0 matplotlib" in checked.out


def test_the_lines_that_mend_a_file_do(faulty, run):
    """After them the tree is dirty, which check tells and goes on."""
    for need in check.needs(faulty):
        if need.fix.startswith("sed"):
            subprocess.run(need.fix, shell=True, cwd=faulty, check=True)
    assert (faulty / "src/main.py").read_text() == MENDED
    assert (faulty / "src/envs/__init__.py").read_text() == ENVS.replace("from .sma", "# from .sma")
    checked = run("check", faulty)
    assert checked.code == 1 and "not committed" in checked.out and "sed -i" not in checked.out
    assert "oxwhirl" in checked.out


# ---- the YAML files


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_a_host_reads_what_a_run_here_reads(alg):
    """`in_hosts` holds default.yaml's values, and is spread over the file as a host's YAML reader sees it."""
    default = yaml.safe_load((CONFIG / "default.yaml").read_text())
    values = yaml.safe_load((CONFIG / "algs" / f"{alg}.yaml").read_text())
    ours = values["in_hosts"].items() - {("agent_output_type", "q")}
    assert ours <= {(k, v) for k, v in default.items() if not isinstance(v, dict)} and len(ours) > 10
    assert values["in_hosts"].items() <= values.items()


def test_base_and_alt_differ_in_what_makes_them_so():
    base, alt = (yaml.safe_load((CONFIG / "algs" / f"qtran_{a}.yaml").read_text()) for a in ("base", "alt"))
    assert {k for k in base | alt if base.get(k) != alt.get(k)} == {"name", "mixer"}


# ---- training there


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_trains_saves_and_reloads_there(layout, tmp_path, run):
    host = make(tmp_path / "host", layout)
    run("install", host, "--with-games")
    short = ["--env-config=qtran_matrix_game", "with", "batch_size=4", "test_interval=8", "learner_log_interval=1"]
    lines = [
        ["--config=qtran_alt", *short, "t_max=16"],
        ["--config=qtran_alt", *short, "t_max=20", "checkpoint_path=results/models"],
        ["--config=qtran_alt", *short, "checkpoint_path=results/models", "evaluate=True"],
        ["--config=qtran_base", *short, "t_max=30"],
    ]
    if layout == "EPyMARL":
        not_shared = ["mac=non_shared_mac", "agent=rnn_ns", "obs_agent_id=False"]
        lines += [[f"--config=qtran_{a}", *short, *not_shared, f"t_max={t}"] for a, t in (("alt", 40), ("base", 50))]
    told = in_tree(host, *lines)
    trained, reloaded, evaluated, *others = told
    for text in (trained, reloaded, *others):
        assert "nopt_loss" in text and "test_return_mean" in text
    assert "loaded 17" in reloaded and "loaded 21" in evaluated
    assert "test_return_mean" in evaluated and "nopt_loss" not in evaluated
    for folder in (host / "results/models").iterdir():
        assert {path.name for path in folder.iterdir()} == {"agent.th", "checksums.json", "mixer.th", "opt.th"}
    assert len(list((host / "results/models").iterdir())) == len(lines) - 1


def in_tree(host, *lines):
    """What the checkout's main.py prints for each of the command lines; one process, as importing torch takes long."""
    code = f"""
import runpy, sys
sys.path.insert(0, "src")
for words in {lines}:
    sys.argv = ["src/main.py", *words]
    runpy.run_path("src/main.py", run_name="__main__")
    print("=====")
"""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=host, env=one_thread, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("=====")[:-1]


def test_an_older_python_gets_as_far_as_being_told_so():
    """Where annotations are evaluated, `str | None` ends Python 3.9 before the message."""
    code = (
        "import sys, plugin; print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    ours = [Path(file) for file in told.stdout.split() if Path(file).is_relative_to(ROOT / "src")]
    texts = {file.name: file.read_text(encoding="utf-8") for file in ours}
    assert "plugin.py" in texts and "args.py" in texts
    lazy = "from __future__ import annotations"
    assert [name for name, text in texts.items() if lazy not in text and ("def " in text or "class " in text)] == []
