"""Checkpoints on disk: checksums, and files that were changed by hand, by a disk or by another program.

What could hurt the process that loads it is loaded in another one (`elsewhere`).
"""

import ast
import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import make_learner, random_batch, same, weights

from utils.args import ConfigError
from utils.checkpoint import find_checkpoint, read_weights
from utils.rundir import BEST, RunDirectory, check_same_algorithm

ROOT = Path(__file__).parents[2]
VALUES = dict(
    name="qmix", env="two_step", env_args={}, seed=5, learner="q_learner", mixer="qmix", agent="rnn", lease_seconds=120
)  # fmt: skip
WEIGHTS = ["agent.th", "mixer.th", "opt.th", "reward_stats.th"]
FILES = [*WEIGHTS, "meta.json"]
ALL = [*FILES, "checksums.json"]


def new_learner(**changes):
    return make_learner("qmix", standardise_rewards=True, **changes)


@pytest.fixture(scope="module")
def trained():
    learner = new_learner()
    rng = np.random.default_rng(0)
    for k in range(2):
        learner.train(random_batch(rng, learner.args), t_env=100 * k, episode_num=k)
    return learner


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory.create(VALUES | {"local_results_path": str(tmp_path / "results")})
    yield directory
    directory.claim.release()


@pytest.fixture
def folder(run, trained):
    """A checkpoint in its run directory."""
    run.save_checkpoint(trained, 24)
    return run.path / "checkpoints" / "24"


@pytest.fixture
def unchecked(folder):
    """The same without checksums."""
    (folder / "checksums.json").unlink(missing_ok=True)
    return folder


def load(folder, learner=None):
    """What a run does with a checkpoint; the learner."""
    check_same_algorithm(str(folder), VALUES)
    learner = learner or new_learner(seed=1)
    learner.load_models(str(folder))
    return learner


def refusal(folder, learner=None):
    with pytest.raises(ConfigError) as error:
        load(folder, learner)
    return str(error.value)


def contents(learner):
    """All that a checkpoint holds, as a list of tensors."""
    state = learner.optimiser.state_dict()["state"]
    stats = learner.reward_stats.state_dict()
    moments = [torch.as_tensor(v) for entry in state.values() for _, v in sorted(entry.items())]
    online = [p.detach() for module in (learner.mac.agent, learner.mixer) for p in module.parameters()]
    return online + moments + [torch.as_tensor(v) for _, v in sorted(stats.items())]


def elsewhere(function, folders):
    """{folder's name: what the `function` of this file, by name, returns for its path}, in one other process."""
    code = f"""
import sys
from pathlib import Path
import test_checkpoint
for path in sys.argv[1:]:
    print(repr((Path(path).name, test_checkpoint.{function}(path))), flush=True)
"""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tests" / "utils")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    out = dict(ast.literal_eval(line) for line in done.stdout.splitlines())
    assert done.returncode == 0, (done.returncode, list(out.items())[-1:], len(out), done.stderr[-2000:])
    assert len(out) == len(folders) and done.stderr == ""
    return out


LEARNER = SimpleNamespace(one=None, batch=None, original=None)  # of the other process


def told(path):
    """What loading came to: "loaded", and an update was made; "refused: message"; "other": it loaded, and not what the
    folder `original` beside it holds."""
    if LEARNER.one is None:
        LEARNER.one = new_learner(seed=1)
        LEARNER.batch = random_batch(np.random.default_rng(3), LEARNER.one.args)
        LEARNER.original = contents(load(Path(path).parent / "original"))
    try:
        load(path, LEARNER.one)
    except ConfigError as error:
        return f"refused: {error}"
    if not same(contents(LEARNER.one), LEARNER.original):
        return "other"
    LEARNER.one.train(LEARNER.batch, 0, 0)
    return "loaded"


# ---------------------------------------------------------------------- checksums


def test_the_files_of_a_checkpoint(folder, run, trained, tmp_path):
    run.save_checkpoint(trained, 24, BEST, value=1.0)
    for path in (folder, run.path / "checkpoints" / BEST):
        assert sorted(f.name for f in path.iterdir()) == sorted(ALL)
        assert sorted(json.loads((path / "checksums.json").read_text())["sha256"]) == sorted(FILES)
    there = tmp_path / "there"
    there.mkdir()
    trained.save_models(there)  # as in EPyMARL
    assert sorted(f.name for f in there.iterdir()) == sorted({*WEIGHTS, "checksums.json"})
    for path in (folder, there):
        assert same(contents(load(path)), contents(trained))


def test_a_checkpoint_that_a_state_puts_back_is_checked(run, trained):
    run.save_checkpoint(trained, 24, BEST)
    files = run.checkpoint_files(BEST)
    shutil.rmtree(run.path / "checkpoints" / BEST)
    run.put_checkpoint(BEST, files)
    load(run.path / "checkpoints" / BEST)
    assert "checksums.json" in files


@pytest.mark.parametrize("file", ALL)
def test_a_flipped_bit_is_told(file, folder):
    path, rng = folder / file, random.Random(file)
    data, learner = path.read_bytes(), new_learner(seed=1)
    for bit in range(8):
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        message = refusal(folder, learner)
        assert message.startswith(f"checkpoint: {folder}/") and "\n" not in message
        assert file == "checksums.json" or f"{folder}/{file}" in message


@pytest.mark.parametrize("file", ALL)
def test_a_missing_file_is_told(file, folder):
    (folder / file).unlink()
    if file == "checksums.json":
        load(folder)
    else:
        message = refusal(folder)
        assert f"{folder}/{file}" in message and "missing" in message


def test_a_file_that_has_no_checksum_is_told(folder):
    path = folder / "checksums.json"
    sums = json.loads(path.read_text())
    del sums["sha256"]["mixer.th"]
    path.write_text(json.dumps(sums))
    assert f"{folder}/mixer.th" in refusal(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"sha256": []}', '{"sha256": "agent.th"}', "[" * 100_000])
def test_a_damaged_list_of_checksums_is_told(text, folder):
    (folder / "checksums.json").write_text(text)
    assert f"{folder}/checksums.json" in refusal(folder)


def test_weights_without_checksums_load_with_a_line(folder):
    said = []
    learner = new_learner(seed=1)
    learner.logger.console_logger = SimpleNamespace(info=said.append)
    load(folder, learner)
    assert said == []
    (folder / "checksums.json").unlink()
    load(folder, learner)
    assert len(said) == 1 and str(folder) in said[0] and "unchecked" in said[0]
    learner.logger.console_logger = None
    load(folder, learner)


def test_a_full_disk_leaves_no_half_a_list(trained, tmp_path, monkeypatch):
    from command import full_disk

    trained.save_models(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        trained.save_models(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---------------------------------------------------------------------- damage that no checksum tells


def test_flipped_bits_without_checksums(unchecked):
    """What they change is told, or changes nothing that is loaded."""
    shutil.copytree(unchecked, unchecked.parent / "original")
    folders, rng = [], random.Random(0)
    for file in FILES:
        data = (unchecked / file).read_bytes()
        for k in range(40):
            copy = shutil.copytree(unchecked, unchecked.parent / f"{file} {k}")
            at = rng.randrange(len(data))
            (copy / file).write_bytes(data[:at] + bytes([data[at] ^ 1 << k % 8]) + data[at + 1 :])
            folders.append(copy)
    out = elsewhere("told", folders)
    assert "other" not in out.values()
    refused = {name: text for name, text in out.items() if text != "loaded"}
    assert len(refused) > len(out) / 2
    for name, text in refused.items():
        file = name.split()[0]
        assert text.startswith("refused: checkpoint: ") and (f"/{name}/{file}" in text or file == "meta.json"), text


def test_cut_files_without_checksums(unchecked):
    for file in WEIGHTS:
        path = unchecked / file
        data = path.read_bytes()
        for length in range(0, len(data), 97):
            path.write_bytes(data[:length])
            with pytest.raises(ConfigError, match=f"{path} "):
                read_weights(str(path), 1000)


def archive_with(path, pickled=None, method=zipfile.ZIP_STORED, **changes):
    """Write the archive at `path` anew with other contents: data.pkl, or entries that end with a name."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            data = pickled if pickled is not None and name.endswith("data.pkl") else old.read(name)
            new.writestr(name, changes.get(name.rpartition("/")[2], data))


def pickled(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def first_weight(state):
    return next(iter(state))


def moment(name, change):
    """A change of one moment of an optimiser's state."""

    def act(state):
        state["state"][1][name] = change(state["state"][1][name])

    return act


def all_moments(change):
    def act(state):
        for entry in state["state"].values():
            for name in ("exp_avg", "exp_avg_sq"):
                entry[name] = change(entry[name])

    return act


def weight(change):
    def act(state):
        state[first_weight(state)] = change(state[first_weight(state)])

    return act


def assign(**changes):
    return lambda state: state.update(changes)


def with_entry(t, i, value):
    t = t.clone()
    t.view(-1)[i] = value
    return t


def quantised(t):
    return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


def nested_lists(depth):
    out = []
    for _ in range(depth):
        out = [out]
    return out


def shadowed(state):
    out = OrderedDict(state)
    out.keys = "keys"
    out._metadata = "text"
    return out


WEIGHT_CHANGES = {
    "a float64 weight": weight(lambda t: t.double()),
    "a float16 weight": weight(lambda t: t.half()),
    "an integer weight": weight(lambda t: t.long()),
    "a complex weight": weight(lambda t: t.to(torch.complex64)),
    "a transposed weight": weight(lambda t: t.T if t.dim() > 1 and t.shape[0] != t.shape[1] else t[:-1]),
    "a weight with an axis more": weight(lambda t: t[None]),
    "a meta weight": weight(lambda t: t.to("meta")),
    "a sparse weight": weight(lambda t: t.reshape(len(t), -1).to_sparse()),
    "a CSR weight": weight(lambda t: t.reshape(len(t), -1).to_sparse_csr()),
    "a quantised weight": weight(quantised),
    "a nested weight": weight(lambda t: torch.nested.nested_tensor([t, t[:1]])),
    "an empty weight": weight(lambda t: t[:0]),
    "a list for a weight": weight(lambda t: t.tolist()),
    "text for a weight": weight(lambda t: "weights"),
    "None for a weight": weight(lambda t: None),
    "a dict for a weight": weight(lambda t: {"weight": t}),
    "a NaN": weight(lambda t: with_entry(t, -1, float("nan"))),
    "an infinity": weight(lambda t: with_entry(t, 0, float("-inf"))),
    "a missing weight": lambda state: state.pop(first_weight(state)),
    "a weight more": assign(more=torch.zeros(3)),
    "a name that is a number": lambda state: state.update({7: torch.zeros(3)}),
    "a name that is a tuple": lambda state: state.update({("a", ("b",)): torch.zeros(3)}),
}
OPTIMISER_CHANGES = {
    "a moment of other shape": moment("exp_avg", lambda t: torch.zeros(1)),
    "a larger moment": moment("exp_avg_sq", lambda t: torch.zeros(100_000)),
    "an empty moment": moment("exp_avg", lambda t: t[:0]),
    "all moments of one value": all_moments(lambda t: torch.zeros(1)),
    "all moments huge": all_moments(lambda t: torch.zeros(300_000)),
    "all moments flat": all_moments(lambda t: t.reshape(-1)),
    "a float64 moment": moment("exp_avg", lambda t: t.double()),
    "a float16 moment": moment("exp_avg_sq", lambda t: t.half()),
    "a meta moment": moment("exp_avg", lambda t: t.to("meta")),
    "a sparse moment": moment("exp_avg", lambda t: t.to_sparse()),
    "a quantised moment": moment("exp_avg", quantised),
    "a list for a moment": moment("exp_avg", lambda t: t.tolist()),
    "a number for a moment": moment("exp_avg", lambda t: 0.5),
    "text for a moment": moment("exp_avg", lambda t: "moment"),
    "None for a moment": moment("exp_avg", lambda t: None),
    "a NaN moment": moment("exp_avg", lambda t: with_entry(t, 0, float("nan"))),
    "a negative second moment": moment("exp_avg_sq", lambda t: with_entry(t, 0, -1.0)),
    "text for a step": moment("step", lambda t: "2"),
    "None for a step": moment("step", lambda t: None),
    "a list for a step": moment("step", lambda t: [2]),
    "True for a step": moment("step", lambda t: True),
    "a step of two values": moment("step", lambda t: torch.ones(2)),
    "a step of no value": moment("step", lambda t: torch.ones(0)),
    "a complex step": moment("step", lambda t: torch.ones(1, dtype=torch.complex64)),
    "a meta step": moment("step", lambda t: torch.ones((), device="meta")),
    "a sparse step": moment("step", lambda t: torch.ones(1).to_sparse()),
    "a negative step": moment("step", lambda t: -1),
    "a NaN step": moment("step", lambda t: torch.tensor(float("nan"))),
    "an endless step": moment("step", lambda t: 1 << 2000),
    "no param_groups": lambda state: state.pop("param_groups"),
    "empty param_groups": assign(param_groups=[]),
    "param_groups that are a dict": lambda state: state.update(param_groups=state["param_groups"][0]),
    "two param_groups": lambda state: state.update(param_groups=state["param_groups"] * 2),
    "a group that is a list": assign(param_groups=[[1, 2]]),
    "a group without params": lambda state: state["param_groups"][0].pop("params"),
    "a group whose params are a number": lambda state: state["param_groups"][0].update(params=3),
    "a parameter less": lambda state: state["param_groups"][0]["params"].pop(),
    "a parameter more": lambda state: state["param_groups"][0]["params"].append(99),
    "another order": lambda state: state["param_groups"][0]["params"].reverse(),
    "a setting that is unknown": lambda state: state["param_groups"][0].update(alpha=0.9),
    "no state": lambda state: state.pop("state"),
    "a state that is a list": lambda state: state.update(state=list(state["state"].values())),
    "a state that is None": assign(state=None),
    "an entry more": lambda state: state["state"].update({99: dict(state["state"][0])}),
    "an entry under text": lambda state: state["state"].update({"0": state["state"].pop(0)}),
    "an entry that is a list": lambda state: state["state"].update({0: [1, 2]}),
    "an entry that is a tensor": lambda state: state["state"].update({0: torch.zeros(3)}),
    "a moment that is missing": lambda state: state["state"][0].pop("exp_avg"),
    "a moment that is unknown": lambda state: state["state"][0].update(max_exp_avg_sq=torch.zeros(3)),
    "no step": lambda state: state["state"][0].pop("step"),
    "an entry more at the top": lambda state: state.update(more=1),
}
STATS_CHANGES = {
    "a mean of other shape": assign(mean=torch.zeros(7, dtype=torch.float64)),
    "a float32 mean": assign(mean=torch.zeros(1)),
    "a NaN variance": assign(var=torch.tensor([float("nan")], dtype=torch.float64)),
    "a negative variance": assign(var=torch.tensor([-1.0], dtype=torch.float64)),
    "a number for a mean": assign(mean=0.0),
    "text for a count": assign(count="7"),
    "a negative count": assign(count=-1.0),
    "an infinite count": assign(count=float("inf")),
    "a count of two values": assign(count=torch.ones(2)),
    "no count": lambda state: state.pop("count"),
    "something more": assign(more=1),
}
REPLACED = {
    "a list": [1, 2],
    "text": "weights",
    "None": None,
    "a tensor": torch.zeros(3),
    "a number": 7,
    "an empty dict": {},
    "nested lists": nested_lists(300),
    "nested dicts": {"state": {"state": {"state": {}}}, "param_groups": [{"params": {"params": 1}}]},
}


def changed(folder, name, file, act):
    """A copy of the checkpoint with one file changed by `act(state)`, which changes the state or returns another."""
    copy = shutil.copytree(folder, folder.parent / name)
    state = torch.load(copy / file, weights_only=True)
    act(state)
    torch.save(state, copy / file)
    return copy


def all_refused(folders, file):
    out = elsewhere("told", folders)
    assert {name: text for name, text in out.items() if not text.startswith("refused")} == {}
    assert {name: text for name, text in out.items() if f"/{name}/{file}" not in text} == {}
    assert {name: text for name, text in out.items() if len(text) > 2000} == {}
    return out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "file, changes",
    [
        ("agent.th", WEIGHT_CHANGES),
        ("mixer.th", WEIGHT_CHANGES),
        ("opt.th", OPTIMISER_CHANGES),
        ("reward_stats.th", STATS_CHANGES),
    ],
)
def test_files_with_other_values_are_refused(file, changes, unchecked):
    shutil.copytree(unchecked, unchecked.parent / "original")
    folders = [changed(unchecked, name, file, act) for name, act in changes.items()]
    for name, value in REPLACED.items():
        copy = shutil.copytree(unchecked, unchecked.parent / name)
        torch.save(value, copy / file)
        folders.append(copy)
    all_refused(folders, file)


@pytest.mark.parametrize("file", ["agent.th", "opt.th"])
def test_archives_that_were_built_by_hand_are_refused(file, unchecked):
    shutil.copytree(unchecked, unchecked.parent / "original")
    data = pickled(unchecked / file)
    deep, head = 500_000, b"\x80\x02}"
    pickles = {f"cut at {n}": data[:n] for n in range(0, len(data), max(1, len(data) // 60))} | {
        "deep lists": head + b"X\1\0\0\0a" + b"]" * deep + b"a" * (deep - 1) + b"s.",
        "deep tuples": head + b"X\1\0\0\0a)" + b"\x85" * deep + b"s.",
        "a deep tuple for a name": head + b")" + b"\x85" * deep + b"Ns.",
        "a call": b"\x80\x02cos\nsystem\nX\4\0\0\0true\x85R.",
        "an empty stack": b"\x80\x02R.",
        "an unknown entry of the memo": b"\x80\x02h\x07.",
        "a name of no module": b"\x80\x02c\xff\n\n.",
        "a newer protocol": pickle.dumps({"a": 1}, protocol=4),
        "a tensor of 1 TB": head + b"X\1\0\0\0actorch\nTensor\n\x8a\x06\0\0\0\0\0\1\x85Rs.",
        "bytes of 1 TB": head + b"X\1\0\0\0acbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\1\x85Rs.",
        "a storage larger than its record": re.sub(rb"(cpuq.)(K.|M..)t", rb"\1J\0\0\0\1t", data, count=1, flags=re.S),
    }
    folders = []
    for name, content in pickles.items():
        folders.append(shutil.copytree(unchecked, unchecked.parent / name))
        archive_with(folders[-1] / file, content)
    for name, changes in {
        "big-endian": {"byteorder": b"big"},
        "no byte order": {"byteorder": b"none"},
        "shorter data": {"0": b""},
        "longer data": {"0": b"\0" * 100_000},
    }.items():
        folders.append(shutil.copytree(unchecked, unchecked.parent / name))
        archive_with(folders[-1] / file, **changes)
    bomb = shutil.copytree(unchecked, unchecked.parent / "a bomb")
    archive_with(bomb / file, method=zipfile.ZIP_DEFLATED, **{"0": b"\0" * 50_000_000})
    assert (bomb / file).stat().st_size < 1_000_000
    out = all_refused([*folders, bomb], file)
    assert "unpack" in out["a bomb"]
    old = shutil.copytree(unchecked, unchecked.parent / "old")
    torch.save({"a": torch.zeros(3)}, old / file, _use_new_zipfile_serialization=False)
    shadow = shutil.copytree(unchecked, unchecked.parent / "shadow")
    torch.save(shadowed(torch.load(shadow / file, weights_only=True)), shadow / file)
    all_refused([old, shadow], file)


def test_moments_that_share_memory_are_taken_apart(unchecked, trained):
    """They would be summed into one another."""
    state = torch.load(unchecked / "opt.th", weights_only=True)
    step = state["state"][0]["step"]
    for entry in state["state"].values():
        entry["step"] = step
        entry["exp_avg"] = entry["exp_avg_sq"] = torch.zeros(1).expand(entry["exp_avg"].shape)
    torch.save(state, unchecked / "opt.th")
    assert elsewhere("after_an_update", [unchecked]) == {"24": "taken apart"}


def after_an_update(path):
    learner = load(path)
    learner.train(random_batch(np.random.default_rng(3), learner.args), 0, 0)
    entries = list(learner.optimiser.state_dict()["state"].values())
    assert [float(entry["step"]) for entry in entries] == [3.0] * len(entries)
    assert len({t.data_ptr() for entry in entries for t in entry.values()}) == 3 * len(entries)
    assert all((entry["exp_avg_sq"] >= 0).all() and entry["exp_avg"].std() > 0 for entry in entries[:2])
    return "taken apart"


def test_step_counts_of_older_torch_load(unchecked, trained):
    state = torch.load(unchecked / "opt.th", weights_only=True)
    for k, entry in enumerate(state["state"].values()):
        entry["step"] = [2, 2.0, torch.tensor([2.0]), torch.tensor(2)][k % 4]
    torch.save(state, unchecked / "opt.th")
    assert same(contents(load(unchecked)), contents(trained))


def test_an_optimiser_that_has_made_no_step_loads(tmp_path):
    new_learner().save_models(tmp_path)
    assert load(tmp_path).optimiser.state_dict()["state"] == {}


def test_the_configured_settings_win_over_the_saved_ones(unchecked):
    state = torch.load(unchecked / "opt.th", weights_only=True)
    state["param_groups"][0].update(lr=9.0, betas=(5, "x"), eps=None, fused=None)
    torch.save(state, unchecked / "opt.th")
    learner = load(unchecked)
    assert learner.optimiser.param_groups[0]["betas"] == (0.9, 0.999)
    learner.train(random_batch(np.random.default_rng(3), learner.args), 0, 0)


def test_weights_that_are_not_finite_are_named(unchecked):
    for file, name in (("agent.th", "fc1.bias"), ("mixer.th", None)):
        state = torch.load(unchecked / file, weights_only=True)
        name = name or first_weight(state)
        before = state[name].clone()
        state[name].view(-1)[0] = float("nan")
        torch.save(state, unchecked / file)
        message = refusal(unchecked)
        assert f"{unchecked}/{file}" in message and repr(name) in message and "diverged" in message
        state[name] = before
        torch.save(state, unchecked / file)


@pytest.mark.parametrize("file", ALL)
@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "dangling link", "huge"])
def test_what_is_no_plain_file_is_refused(file, kind, folder, unchecked):
    path = folder / file
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "huge":
        with open(path, "wb") as f:
            f.truncate(1 << 40)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/nowhere")
    if (file, kind) == ("meta.json", "dangling link"):
        return
    assert f"{folder}/{file}" in refusal(folder)


METAS = {
    "brackets": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "a list": "[1]",
    "a number": "7",
    "null": "null",
    "empty": "",
    "bytes": b"\xff\xfe\x00",
    "no t_env": "{}",
    "text for t_env": '{"t_env": "24"}',
    "a fraction": '{"t_env": 24.5}',
    "true": '{"t_env": true}',
    "null for t_env": '{"t_env": null}',
    "negative": '{"t_env": -1}',
    "NaN": '{"t_env": NaN}',
    "endless": '{"t_env": 1' + "0" * 3000 + "}",
    "digits": '{"t_env": 1' + "0" * 6000 + "}",
    "a list for a mixer": '{"t_env": 24, "mixer": ' + "[" * 500 + "]" * 500 + "}",
}


@pytest.mark.parametrize("text", METAS.values(), ids=METAS.keys())
def test_a_damaged_meta_json_is_refused(text, run, unchecked):
    data = text if isinstance(text, bytes) else text.encode()
    (unchecked / "meta.json").write_bytes(data)
    assert f"{unchecked}/meta.json" in refusal(unchecked)
    best = run.path / "checkpoints" / BEST
    shutil.copytree(unchecked, best)
    with pytest.raises(ConfigError, match="best/meta.json"):
        check_same_algorithm(find_checkpoint(str(run.path), BEST)[0], VALUES)


# ---------------------------------------------------------------------- which checkpoint, and whose


def test_only_folders_with_canonical_numbers_are_checkpoints(tmp_path):
    for name in ("100", "0", "007", "²", "٣", "1_000", "+5", " 6", "5e3", "-3", "9" * 30, "best"):
        (tmp_path / name).mkdir()
    (tmp_path / "3000").write_text("")
    (tmp_path / "4000").symlink_to("/nowhere")
    assert find_checkpoint(tmp_path) == (str(tmp_path / "100"), 100)
    assert find_checkpoint(tmp_path, 3000) == (str(tmp_path / "100"), 100)
    assert find_checkpoint(tmp_path, 7) == (str(tmp_path / "0"), 0)
    for step in (-1, "foo", 1.5, True):
        with pytest.raises(ConfigError, match='load_step = .* must be a step, a whole number of at least 0, or "best"'):
            find_checkpoint(tmp_path, step)
    shutil.rmtree(tmp_path / "100")
    shutil.rmtree(tmp_path / "0")
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("summary", ["commit", "none", "damaged", "deep", "other types", "folder", "FIFO"])
def test_the_summary_tells_who_wrote_an_old_checkpoint_that_does_not_fit(summary, run, unchecked):
    """Its meta.json does not say."""
    folder, path = unchecked, run.path / "summary.json"
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k not in ("versions", "commit")}))
    facts = {"commit": "abc123+", "versions": {"torch": "1.2.3", "python": "3.4"}}
    texts = {"commit": json.dumps(facts), "damaged": "{", "deep": "[" * 100_000, "other types": '{"versions": 7}'}
    if summary in texts:
        path.write_text(texts[summary])
    elif summary == "folder":
        path.mkdir()
    elif summary == "FIFO":
        os.mkfifo(path)
    message = refusal(folder, new_learner(hidden_dim=9))
    assert "does not fit RNNAgent" in message and "'fc1.weight' is (8, " in message
    assert ("written by commit abc123+" in message and "torch 1.2.3" in message) == (summary == "commit")
    message = refusal(folder, make_learner("qmix", standardise_rewards=True, optimizer="rmsprop"))
    assert "opt.th does not fit RMSprop" in message and ("abc123+" in message) == (summary == "commit")


@pytest.mark.parametrize("commit", ["def456", None])
def test_a_checkpoint_itself_tells_who_wrote_it(commit, run, unchecked):
    """The run's summary.json may be gone, or of the version that resumed it."""
    (run.path / "summary.json").write_text(json.dumps({"commit": "abc123", "versions": {"qtran": "0.2"}}))
    meta = json.loads((unchecked / "meta.json").read_text()) | {"versions": {"torch": "3", "qtran": "0.1"}}
    (unchecked / "meta.json").write_text(json.dumps(meta | {"commit": commit}))
    by = "version 0.1, commit def456, torch 3" if commit else "version 0.1, torch 3"  # no commit: outside git
    assert f"(written by {by})" in refusal(unchecked, new_learner(hidden_dim=9))


def test_weights_that_would_run_code_are_refused(unchecked, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    for file in WEIGHTS:
        before = (unchecked / file).read_bytes()
        torch.save({"a": Evil()}, unchecked / file)
        assert f"{unchecked}/{file}" in refusal(unchecked)
        (unchecked / file).write_bytes(before)
    assert not (tmp_path / "evil").exists()


def test_loading_leaves_the_random_numbers_and_the_targets_in_order(folder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    learner = new_learner(seed=0)
    torch.manual_seed(0)
    load(folder, learner)
    assert torch.equal(torch.get_rng_state(), before)
    half = len(weights(learner)) // 2
    assert same(weights(learner)[:half], weights(learner)[half:])
