"""Cases: a command, and an input of it that was mutated."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from mutations import damage, values
from mutations.bases import GAMES, ROOT, RUNS, STATES, Bases, signed, tiny, words
from mutations.forked import CANARY, Case
from parts import readers
from utils.checkpoint import write_checksums
from utils.config import load
from utils.config_files import names
from utils.runs import read_bytes

HERE = f"../{CANARY}"  # from the working directory
ALGORITHMS, ENVIRONMENTS = names("algs"), names("envs")
PATHS = ("local_results_path", "checkpoint_path", "env_args.replay_dir", "env_args.map_name")
PATH_VALUES = [
    "", ".", "..", "x", "x/y/../z", "~", "~nobody", "~/x", "a\0b", "\ud800", "r" * 300, "r/" * 900, "/proc/x",
    "/dev/null", "/dev/null/x", "é", " ", "x\ny", "results", "file", "fifo", "loop", 3, None, True, [], "$HOME", "%s",
    "/",
]  # fmt: skip
URLS = [
    "", "mongodb://", "mongodb://127.0.0.1:1", "mongodb://u:p@127.0.0.1:1", "mongodb://u@127.0.0.1:1/?x=1", "http://x",
    "x y", "mongodb://127.0.0.1:99999", "mongodb://127.0.0.1:x", "mongodb://127.0.0.1:1/?ssl=maybe", "mongodb+srv://",
    "mongodb://[::1", "\0", "\ud800", "mongodb://%zz@127.0.0.1:1", "mongodb://127.0.0.1:1/a b", 3, None, [],
    "mongodb:///tmp/x.sock", "mongodb://,", 1e5,
]  # fmt: skip
LONG = ("env_workers",)  # what takes seconds is tried less often


@cache
def schema(alg: str, env: str) -> dict:
    """{dotted key: (type, metadata)} of a run."""
    return {k: (d.type, d.meta) for k, d in load(alg, env, {"seed": 1}, readers).schema.items()}


@cache
def aliases(alg: str, env: str) -> dict:
    """{other name: dotted key}."""
    return {other: key for key, (_, meta) in schema(alg, env).items() for other in meta["aliases"]}


# ---------------------------------------------------------------------- keys and values


@st.composite
def key_value(draw: Any, alg: str, env: str) -> tuple[str, str, tuple[str, ...]]:
    """(a key, a value as `with` has it, names one of which a message has to hold)."""
    keys = schema(alg, env)
    key = draw(st.sampled_from(sorted(keys)))
    if draw(st.integers(0, 3)) == 0 and any(k.startswith("env_args.") for k in keys):
        key = draw(st.sampled_from(sorted(k for k in keys if k.startswith("env_args."))))
    if key in LONG and draw(st.integers(0, 3)):
        key = "lr"
    kind, of_key = draw(st.integers(0, 9)), key
    if key in PATHS:
        value = draw(st.sampled_from(PATH_VALUES))
    elif key == "mongo_url":
        value = draw(st.sampled_from(URLS))
    elif kind <= 5:
        value = draw(values.like(*keys[key]))
    else:
        value = draw(values.anything(HERE))
    text = value if isinstance(value, str) and draw(st.booleans()) else values.written(value)
    if draw(st.integers(0, 9)) == 0:
        key, text = draw(bad_key(key)), draw(st.just(text) | values.texts())
    elif draw(st.integers(0, 20)) == 0:
        key = draw(st.sampled_from([*aliases(alg, env), key]))
        of_key = aliases(alg, env).get(key, key)
    return key, text, named(key, text, of_key)


@st.composite
def and_a_word(draw: Any, argv: list[str], alg: str, env: str) -> tuple[list[str], tuple[str, ...]]:
    """A command line, now and then with one mutated word more, and the names of that."""
    if draw(st.integers(0, 4)):
        return argv, ()
    key, text, said = draw(key_value(alg, env))
    return [*argv, *([] if "with" in argv else ["with"]), f"{key}={text}"], (*said, key)


@st.composite
def bad_key(draw: Any, key: str) -> str:
    """What is no key, made of one."""
    at = draw(st.integers(0, len(key) - 1))
    return draw(
        st.sampled_from(
            [
                key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key.upper(), key.title(), f"env_args.{key}",
                f"{key}.x", f"{key}.", f".{key}", f"{key}..x", f"env_args..{key}", "env_args", "env_args.", "", " ",
                ".", "..", "=", "__class__", "self", "py/object", "env_args.py/object", "<<", "None", "1", "é",
                "k" * 5000, "a." * 500, "\0", "\ud800", "a b", "x\ny", "preset", "presets", "extends", "in_hosts",
                "config", "--config", "with", "$x", "a[0]", f" {key} ", f"{key}\0", "seed", "name",
            ]
        )
        | values.texts()
    )  # fmt: skip


def named(key: str, text: str, of_key: str = "") -> tuple[str, ...]:
    """How a message may name a word KEY=VALUE."""
    key = key.partition("=")[0]
    told = {key, key.strip(), of_key or key, (of_key or key).removeprefix("env_args."), f"{key}={text}"[:18]}
    if not key.partition(".")[0]:
        told |= {"unknown key ''"}
    if not key.startswith("env_args."):  # no key at all: what stands before the first point is named
        told |= {key.strip().partition(".")[0]}
    told |= {repr(t)[1:-1] for t in told} | {repr(f"{key}={text}")[1:15]}
    return tuple(sorted(t for t in told if t.strip())) or ("KEY=VALUE",)


# ---------------------------------------------------------------------- command lines


@st.composite
def overrides(draw: Any, bases: Bases) -> Case:
    """A run with mutated words after `with`."""
    env = draw(st.sampled_from(GAMES + ENVIRONMENTS_RARELY))
    alg = draw(st.sampled_from(ALGORITHMS))
    mutated = draw(st.lists(key_value(alg, env), min_size=1, max_size=draw(st.sampled_from([1, 1, 2, 4]))))
    keys = [key for key, _, _ in mutated]
    kept = {k: v for k, v in tiny(env).items() if k not in keys or draw(st.booleans())}
    argv = words(alg, env, kept)
    for key, text, _ in mutated:
        at = draw(st.sampled_from([len(argv), len(argv), 3]))
        argv.insert(at, f"{key}={text}")
    others = [("main", ["--explain"]), ("doctor", []), ("doctor", ["--start", env])]
    command, flags = draw(st.sampled_from([("main", [])] * 15 + others))
    if env not in GAMES:
        command, flags = "main", ["--explain"]
    argv = [*flags, *argv]
    said = tuple(sorted({name for _, _, names_ in mutated for name in names_}))
    told = [f"{key}={text}" for key, text, _ in mutated]
    anywhere = any(path in keys for path in PATHS)
    return Case(command, argv, said, places, anywhere=anywhere, codes=CODES.get(command, (0,)), draw=True, told=told)


ENVIRONMENTS_RARELY = tuple(env for env in ENVIRONMENTS if env not in GAMES)


def places(work: Path) -> None:
    """What a path may lead to."""
    (work / "file").write_text("x")
    os.mkfifo(work / "fifo")
    (work / "loop").symlink_to("loop")


WORDS = [
    "--config", "--env-config", "--from", "--resume", "--strict", "--status", "--list", "--explain", "--help", "-h",
    "with", "--config=qmix", "--config=qmx", "--config=", "--config=../../x", "--config=\0", "--config=\ud800",
    "--env-config=two_step", "--env-config=two-step", "--env-config=", "--env-config=.", "--from=", "--from=nowhere",
    "--from=.", "--from=file", "--from=fifo", "--resume=", "--resume=latest", "--resume=nowhere", "--resume=.",
    "--resume=/", "--status=", "--status=nowhere", "--status=.", "--status=fifo", "--strict=1", "--conf=qmix",
    "-config=qmix", "--", "-", "", "seed=1", "lr=0.1", "@file", "--config qmix", "---",
    "--config=qmix --env-config=two_step", "--unknown", "--seed=1", "mongodb://u:secret@h", "--dry-run", "results",
    "\0", "\ud800", "é", "--workers", "--workers=0", "--workers=-1", "--workers=x", "--workers=1e9",
    "--workers=" + "9" * 5000, "--retries=-1", "--retries=x", "--retries=" + "9" * 400, "--seeds", "--seeds=",
    "--seeds=x", "--seeds=1-", "--seeds=5-1", "--seeds=1-99999999", "--seeds=²", "--seeds=1,1", "--algorithms",
    "--algorithms=x", "--environments=\ud800", "--results=", "--results=file", "--results=\0", "--results=/proc/x",
    "--out=file", "--out=", "--out=\0", "--out=/proc/x", "--out=new", "--metric=", "--metric=loss", "--metric=\0",
    "--metric=\ud800", "--metric=[x]", "--threshold=nan", "--threshold=1e999", "--threshold=x", "--threshold=-1e308",
    "--threshold=1_0", "--final=0", "--final=2", "--final=nan", "--final=1e-300", "--reps=0", "--reps=1e3",
    "--reps=100", "--reps=" + "9" * 5000, "--title=", "--title=<script>", "--title=\0", "--title=\ud800",
    "--title=" + "t" * 5000, "--start", "--start=two_step", "--start=x", "--start=smax", "check", "install",
    "uninstall", "--with-games", "file", "fifo", "loop", "studies", "study.yaml", "nowhere.yaml", "config", "t_max=4",
    "env_args.x=1", "mongo_url=x", "mongo_db=x", "mongo_url=mongodb://127.0.0.1:1", "=", "x", "lr", "lr=", "with=1",
]  # fmt: skip
GOOD = {
    "main": [
        ["--config=qmix", "--env-config=two_step", "with", *(f"{k}={v}" for k, v in tiny("two_step").items())],
        ["--list"], ["--status", "results"], ["--config=vdn", "--env-config=matrix_game", "--explain"],
    ],
    "sweep": [["study.yaml", "--dry-run"], ["study.yaml", "--dry-run", "--seeds", "1", "--algorithms", "vdn"]],
    "report": [["results", "--reps=100"], ["results", "--out", "results/out", "--reps=100"]],
    "doctor": [[], ["--config=vdn", "--env-config=two_step"], ["--start", "two_step"],
               ["--env-config=matrix_game", "with", "lr=0.1"]],
    "sync": [["results"], ["results", "with", "mongo_url=mongodb://127.0.0.1:1", "mongo_db=x"]],
    "plugin": [["check", "host"], ["install", "host", "--dry-run"], ["uninstall", "host"]],
}  # fmt: skip
CODES = {"doctor": (0, 1), "plugin": (0, 1), "sync": (0, 1)}
STUDY = {
    "title": "t", "question": "q", "algorithms": {"vdn": None, "a": {"config": "qmix", "lr": 0.01}},
    "environments": {"two_step": None, "P = 1": {"env-config": "matrix_game", "env_args.key": "climbing"}},
    "overrides": {"t_max": 20}, "seeds": "1-2", "allow_different": ["batch_size_run"], "results": "results/s",
}  # fmt: skip


@st.composite
def command_lines(draw: Any, bases: Bases) -> Case:
    """A command whose words are mutated."""
    command = draw(st.sampled_from(["main", "main", "sweep", "report", "doctor", "sync", "plugin"]))
    argv = list(draw(st.sampled_from(GOOD[command])))
    before = list(argv)
    for _ in range(draw(st.integers(1, 3))):
        at, kind = draw(st.integers(0, len(argv))), draw(st.integers(0, 5))
        if kind <= 2 or not argv:
            argv.insert(at, draw(st.sampled_from(WORDS) | values.texts()))
        elif kind == 3:
            del argv[at % len(argv)]
        elif kind == 4:
            argv.insert(at, draw(st.sampled_from(argv)))
        else:
            argv[at % len(argv)] = draw(st.sampled_from(WORDS) | values.texts())
    name = draw(st.sampled_from(sorted(bases.runs)))

    def prepare(work: Path) -> Any:
        places(work)
        bases.put(name, work)
        (work / "study.yaml").write_text(yaml.safe_dump(STUDY))
        (work / "host").mkdir()

    if not any(word == "--dry-run" for word in argv) and command in ("sweep", "plugin"):
        argv.append("--dry-run")  # no processes of its own
    own = ("results", "new", "report", "nowhere")
    told = [f"of {before}"]
    anywhere = command == "report" or "local_results_path" in str(argv)
    return Case(command, argv, (), prepare, own, anywhere, CODES.get(command, (0,)), told=told)


# ---------------------------------------------------------------------- configuration files


@st.composite
def configurations(draw: Any, bases: Bases) -> Case:
    """A run whose files of src/config, or whose --from file, are mutated."""
    alg, env = draw(st.sampled_from(ALGORITHMS)), draw(st.sampled_from(GAMES))
    of_a_run = draw(st.integers(0, 3)) == 0
    file = draw(st.sampled_from([f"algs/{alg}.yaml", f"envs/{env}.yaml", "default.yaml"]))
    changes = draw(
        st.lists(damage.yaml_change(HERE) | damage.yaml_change(HERE) | damage.bytes_change(), min_size=1, max_size=3)
    )
    name = draw(st.sampled_from(sorted(bases.runs)))
    told = [f"{'config.yaml' if of_a_run else file} {what}" for what, _ in changes]

    def prepare(work: Path) -> Any:
        places(work)
        shutil.copytree(ROOT / "src" / "config", work / "config")
        path = work / "config" / file
        if of_a_run:
            path = work / "config.yaml"
            shutil.copy(bases.runs[name] / "config.yaml", path)
        return [name for _, act in changes for name in try_to(act, path)]

    flags = draw(st.sampled_from([[], [], [], ["--explain"], ["--list"]]))
    if of_a_run:
        argv = [*flags, "--from", "config.yaml", "with", "local_results_path=results"]
    else:
        argv = [*flags, *words(alg, env, tiny(env))]
    about = ("config.yaml" if of_a_run else file, "missing key", f"-config={Path(file).stem}")
    return Case("main", argv, about, prepare, ("results",), of_a_run, told=told)


def try_to(act: Any, path: Path) -> list[str]:
    """Make a change, as far as those before it leave something to change; names that a message may hold."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not path.exists() or (path.is_file() and path.stat().st_size < 2**24):
            names_ = act(path)
            return names_ if isinstance(names_, list) else []
    return []


# ---------------------------------------------------------------------- studies


@st.composite
def studies(draw: Any, bases: Bases) -> Case:
    """A study that is mutated, or its command line."""
    known = ["study.yaml", *sorted(path.name for path in (ROOT / "studies").glob("*.yaml"))]
    file = draw(st.sampled_from(known))
    changes = draw(
        st.lists(
            damage.yaml_change(HERE) | damage.yaml_change(HERE) | study_change() | damage.bytes_change(),
            min_size=1,
            max_size=3,
        )
    )
    told = [f"{file} {what}" for what, _ in changes]

    def prepare(work: Path) -> Any:
        places(work)
        (work / "studies").mkdir()
        path = work / "studies" / file
        if file == "study.yaml":
            path.write_text(yaml.safe_dump(STUDY))
        else:
            shutil.copy(ROOT / "studies" / file, path)
        return [name for _, act in changes for name in try_to(act, path)]

    argv = [f"studies/{file}", "--dry-run"]
    if draw(st.integers(0, 5)) == 0:
        argv += draw(
            st.sampled_from(
                [
                    ["--seeds", "1"],
                    ["--seeds", "0-3,2"],
                    ["--algorithms", "vdn"],
                    ["--environments", "x"],
                    ["--results", "file"],
                ]
            )
        )
    return Case("sweep", argv, (file, "--"), prepare, ("results",), told=told)


@st.composite
def study_change(draw: Any) -> damage.Damage:
    """A change of one of a study's own keys."""
    key = draw(st.sampled_from([*STUDY, "titel", "1"]))
    value = draw(
        st.sampled_from(
            [
                "[" + ", ".join(f"{n * 10000}-{n * 10000 + 9999}" for n in range(3000)) + "]", "0-9999", "1-10000",
                "[1, 1]", "[]", "1-3, x", "-1", "1.5", "4294967295", "4294967296", "[[1]]", "[{a: 1}]", "1-2-3", "²",
                "[qmix, qmix]", "[qmix, vdn, iql]", "{a: {config: qmix}, b: {config: qmix}}", "{a: {config: [qmix]}}",
                "{a: {config: {x: y}}}", "{a: {config: null}}", "{a: {env-config: [1]}}", "{null: {config: vdn}}",
                "{1: {config: vdn}}", "{? [1, 2] : {config: vdn}}", "{a/b: {config: vdn}}", "{'..': {config: vdn}}",
                "{'': {config: vdn}}", "{qmix: [1]}", "{qmix: x}", "{qmix: {env_args: 3}}", "{qmix: {env_args: [1]}}",
                "{qmix: {env_args: {1: 2}}}", "{qmix: {1: 2}}", "{qmix: {name: x}}", "{qmix: {seed: 3}}",
                "{qmix: {t_max: 5}}", "{two_step: {env_args: {x: 1}}}", "{two_step: {env: predator_prey}}",
                "{two_step: {preset: battle}}", "{two_step: {preset: [1]}}", "{preset: {a: 1}}", "{lr: .nan}",
                "{env_args.x: 1}", "{'': 1}", "{name: x}", "{local_results_path: x}", "[t_max]", "[env_args.k]", "[1]",
                "{t_max: true}", "t_max", "[gaussian_squeeze, predator_prey]", "[smax, sc2]",
                "{A: {env-config: two_step}, a: {env-config: matrix_game}}",
                "{'a b': {env-config: two_step}, a_b: {env-config: matrix_game}}", "file", "/proc/x", '"\\0"',
                "~nobody/x", "'x\n\n y'", "2026-01-01", "!!binary aGFsbG8=",
                "{mongo_url: 'mongodb://a:b@c', mongo_db: d}",
            ]
        )
        | st.lists(st.sampled_from([
            *ALGORITHMS, *ENVIRONMENTS, "x",
        ]), max_size=4).map(lambda names_: "[" + ", ".join(names_) + "]")
        | values.yaml_value(HERE)
    )  # fmt: skip

    def act(path: Path) -> None:
        raw = path.read_text(encoding="utf-8").splitlines()
        at = next((i for i, line in enumerate(raw) if line.startswith(f"{key}:")), len(raw))
        below = at + 1
        while below < len(raw) and raw[below].startswith((" ", "#")):
            below += 1
        raw[at:below] = [f"{key}: {value}"]
        path.write_bytes(("\n".join(raw) + "\n").encode("utf-8", "surrogatepass"))

    return f"{key} is {value[:200]}", act


# ---------------------------------------------------------------------- files of weights


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {HERE}",)


TENSORS = {
    "has another shape": lambda t: torch.zeros(*t.shape, 2) if t.dim() else torch.zeros(3),
    "has no numbers": lambda t: torch.zeros(0),
    "is transposed": lambda t: t.t() if t.dim() == 2 else t.flip(0) if t.dim() else t,
    "is a float64": lambda t: t.double(),
    "is a float16": lambda t: t.half(),
    "is an int64": lambda t: t.long(),
    "is a bool": lambda t: t.bool(),
    "is complex": lambda t: t.to(torch.complex64),
    "is sparse": lambda t: t.to_sparse() if t.dim() else t,
    "is on no device": lambda t: t.to("meta"),
    "is NaN": lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t,
    "is infinite": lambda t: torch.full_like(t, float("inf")) if t.is_floating_point() else t,
    "is huge": lambda t: torch.full_like(t, 3e38) if t.is_floating_point() else torch.full_like(t, 100),
    "is negative": lambda t: -torch.ones_like(t) if t.dtype != torch.bool else t,
    "is expanded": lambda t: torch.zeros(1).expand(t.shape),
    "is a larger one's view": lambda t: torch.zeros(10**6)[: max(1, t.numel())].reshape(t.shape) if t.numel() else t,
    "is quantized": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "wants a gradient": lambda t: t.float().requires_grad_(),
    "is a parameter": lambda t: torch.nn.Parameter(t.float()),
    "is a list": lambda t: t.tolist(),
    "is numpy's": lambda t: t.detach().numpy(),
    "is nested": lambda t: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]),
    "is an integer of many digits": lambda t: 10**400,
    "is a number": lambda t: 1.5,
    "is text": lambda t: "x",
    "is None": lambda t: None,
    "is code": lambda t: Code(),
    "is a dict": lambda t: {"a": t},
    "is a deep list": lambda t: values.deep(300),
    "is a deep tuple": lambda t: _deep_tuple(3000),
    "is itself": lambda t: _circle(),
}  # fmt: skip


def _deep_tuple(levels: int) -> tuple:
    value: tuple = ()
    for _ in range(levels):
        value = (value,)
    return value


def _circle() -> list:
    value: list = []
    value.append(value)
    return value


PICKLES = {
    "is a list of all": lambda s: [s],
    "is an OrderedDict": lambda s: OrderedDict(s) if isinstance(s, dict) else s,
    "is a tensor": lambda s: torch.zeros(3),
    "is empty": lambda s: {},
    "is code": lambda s: Code(),
    "is a set": lambda s: {1, 2},
    "holds code": lambda s: {**s, "x": Code()} if isinstance(s, dict) else Code(),
    "has a key more": lambda s: {**s, "extra.weight": torch.zeros(2)} if isinstance(s, dict) else s,
    "has a number as key": lambda s: {**s, 3: torch.zeros(2)} if isinstance(s, dict) else s,
    "has a tuple as key": lambda s: {**s, (1, 2): 1} if isinstance(s, dict) else s,
    "lacks a key": lambda s: dict(list(s.items())[1:]) if isinstance(s, dict) else s,
    "is itself": lambda s: _circle(),
    "is as it was": lambda s: s,
}


@st.composite
def weights_change(draw: Any) -> damage.Damage:
    """Other things in a file of weights, or another way of writing them."""
    n, whole, way = draw(st.integers(0, 1000)), draw(st.integers(0, 3)) == 0, draw(st.integers(0, 9))
    what = draw(st.sampled_from(sorted(PICKLES if whole else TENSORS)))
    told = what if whole else f"value {n} {what}"

    def act(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        state = PICKLES[what](state) if whole else _with_one_changed(state, n, TENSORS[what])
        _save(state, path, way)

    return f"{told}, written in way {way}", act


def _with_one_changed(state: Any, n: int, change: Any) -> Any:
    """The same with the n-th value in it, of any depth, changed; tensors first."""
    places = []

    def walk(at: Any) -> None:
        for k, inner in list(at.items()) if isinstance(at, dict) else enumerate(at):
            places.append((at, k))
            if isinstance(inner, (dict, list)):
                walk(inner)

    walk(state)
    if not places:
        return change(torch.zeros(2))
    at, k = places[n % len(places)]
    value = at[k]
    at[k] = change(value if isinstance(value, torch.Tensor) else torch.zeros(2))
    return state


def _save(state: Any, path: Path, way: int) -> None:
    try:
        if way == 0:
            torch.save(state, path, _use_new_zipfile_serialization=False)
        elif way == 1:
            path.write_bytes(pickle.dumps(state))
        elif way == 2:
            torch.save(state, path, pickle_protocol=4)
        elif way == 3:
            _packed(state, path)
        else:
            torch.save(state, path)
    except Exception:  # what torch cannot save
        path.write_bytes(pickle.dumps({"a": 1}))


def _packed(state: Any, path: Path) -> None:
    """An archive that is compressed."""
    data = io.BytesIO()
    torch.save(state, data)
    with zipfile.ZipFile(data) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


@st.composite
def checkpoints(draw: Any, bases: Bases) -> Case:
    """A run from a checkpoint whose files are mutated."""
    name = draw(st.sampled_from(sorted(bases.runs)))
    folder = draw(st.sampled_from(sorted({f.split("/")[1] for f in bases.files[name] if f.startswith("checkpoints/")})))
    files = sorted(f.split("/")[2] for f in bases.files[name] if f.startswith(f"checkpoints/{folder}/"))
    other = draw(st.sampled_from(sorted(bases.runs)))
    changes, touched = [], []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        file = draw(st.sampled_from([f for f in files if f.endswith(".th")] * 2 + files))
        kinds = [damage.bytes_change(), swapped(bases, files, other)]
        kinds += [damage.json_change(HERE)] * 2 if file.endswith(".json") else [weights_change()] * 3
        what, act = draw(st.one_of(*kinds))
        changes.append((file, what, act))
        touched.append(file)
    sums = draw(st.sampled_from(["as they were", "gone", "gone", "right"]))
    alg, env, keys = RUNS[name]
    evaluate = draw(st.booleans())
    step = draw(
        st.sampled_from(
            ["best" if folder == "best" else folder] * 6
            + [
                "0",
                "best",
                "3",
                "-1",
                "99",
                "x",
                "None",
                str(2**62),
                "1.0",
            ]
        )
    )
    more = {"checkpoint_path": "results", "load_step": step} | ({"evaluate": True} if evaluate else {"t_max": 24})

    def prepare(work: Path) -> Any:
        path = bases.put(name, work)
        shutil.move(path, work / "run")
        at = work / "run" / "checkpoints" / folder
        for file, _, act in changes:
            try_to(act, at / file)
        if sums == "gone":
            (at / "checksums.json").unlink() if (at / "checksums.json").is_file() else None
        elif sums == "right" and all(file.is_file() and file.stat().st_size < 2**24 for file in at.iterdir()):
            with contextlib.suppress(Exception):
                write_checksums(at)

    told = [f"{folder}/{file} {what}" for file, what, _ in changes] + [f"checksums {sums}"]
    argv = words(alg, env, tiny(env) | keys | more | {"checkpoint_path": "run"})
    argv, said = draw(and_a_word(argv, alg, env))
    about = (f"/{folder}", *(f"{folder}/{file}" for file in touched), "checkpoint_path", "load_step", *said)
    return Case("main", argv, about, prepare, anywhere="local_results_path" in said, told=told)


@st.composite
def swapped(draw: Any, bases: Bases, files: list[str], other: str) -> damage.Damage:
    """Another file of the checkpoint, or of another run's, in its place."""
    source = draw(
        st.sampled_from(files + [f for f in bases.files[other] if f.endswith((".th", ".pt", ".json", ".npy"))])
    )

    def act(path: Path) -> None:
        found = path.parent / source if "/" not in source else bases.runs[other] / source
        shutil.copy(found, path) if found != path else None

    return f"is {source} of {other}", act


# ---------------------------------------------------------------------- run directories


USES = ["resume"] * 8 + ["status", "report", "sync", "from", "latest", "latest", "load", "sweep", "scripts"]
STRAYS = [
    "config.yaml.partial", "summary.json.partial", "metrics.jsonl.partial", "metrics.superseded.jsonl",
    "tables.json.partial", "checkpoints/16.partial", "checkpoints/16", "checkpoints/16.old",
    "checkpoints/best.partial", "checkpoints/x", "checkpoints/007", "state/parts.9.pt", "state/parts.9.pt.partial",
    "state/manifest.9.json", "state/manifest.99999999999999999999.json", "state/manifest.x.json",
    "state/replay.0-9.npy.partial", "state/x", "claims/000002.json", "claims/999999.json", "claims/x", "claims/.x",
    "tensorboard", "nonfinite", "x.yaml",
]  # fmt: skip


@st.composite
def run_directories(draw: Any, bases: Bases) -> Case:
    """A command on a run directory whose files are mutated."""
    name, use = draw(st.sampled_from(sorted(bases.runs))), draw(st.sampled_from(USES))
    alg, env, keys = RUNS[name]
    files = sorted(bases.files[name])
    some = [f for f in files if f.startswith(("state/", "config", "metrics", "summary", "claims/"))]
    if use not in ("resume", "latest"):
        some = [f for f in files if "/" not in f] * 3 + some
    some += [f"sacred:{file}" for file in ("run.json", "config.json", "metrics.json")] * (1 + use.count("report"))
    changes = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        if draw(st.integers(0, 11)) == 0:
            file = draw(st.sampled_from(STRAYS))
            what, act = draw(st.sampled_from(damage.NEW))
        else:
            file = draw(st.sampled_from(some))
            what, act = draw(change_of(bases, file, name))
        changes.append((file, what, act))
    again = use in ("resume", "latest") and draw(st.booleans())  # the state's checksums are made right again
    unfinished = draw(st.integers(0, 5)) > 0
    run = str(bases.relative(name)) if use == "latest" else "results/run/x/seed1"

    def prepare(work: Path) -> Any:
        path = bases.put(name, work, unfinished)
        (work / "study.yaml").write_text(yaml.safe_dump(STUDY_OF_RUNS))
        if use != "latest":
            path = Path(shutil.move(path, work / run))
        (sacred,) = (work / "results" / "sacred").glob("*/*/1")
        said = []
        for file, _, act in changes:
            said += try_to(act, sacred / file[7:] if file.startswith("sacred:") else path / file)
        if again:
            with contextlib.suppress(Exception):
                sign_again(path / "state")
        return said

    more = [[], [], [], ["with", "t_max=24"], ["with", "keep_replay=False"], ["with", "lr=0.1"], ["--strict"]]
    command, argv = {
        "resume": lambda: ("main", ["--resume", run, *draw(st.sampled_from(more))]),
        "latest": lambda: ("main", ["--resume=latest", *words(alg, env, tiny(env) | STATES | keys | {"t_max": 16})]),
        "status": lambda: ("main", ["--status", "results"]),
        "from": lambda: ("main", ["--from", f"{run}/config.yaml", "with", "local_results_path=results"]),
        "load": lambda: ("main", words(alg, env, tiny(env) | keys | {"checkpoint_path": run, "evaluate": True})),
        "report": lambda: ("report", ["results", "--reps=100", "--out", "results/report"]),
        "sync": lambda: ("sync", [run, "with", "mongo_url=mongodb://127.0.0.1:1", "mongo_db=x"]),
        "sweep": lambda: ("sweep", ["study.yaml", "--dry-run"]),
        "scripts": lambda: draw(
            st.sampled_from([("pack_runs", ["results", "results/a.tar.xz"]), ("learned_tables", ["results"])])
        ),
    }[use]()
    told = [f"{file} {what}" for file, what, _ in changes] + [f"signed again: {again}, unfinished: {unfinished}"]
    said = ()
    if use in ("resume", "from", "load", "latest"):
        argv, said = draw(and_a_word(argv, alg, env))
    about = (run, "missing key", *said, *(Path(file.removeprefix("sacred:")).name for file, _, _ in changes))
    painted = use == "report" and draw(st.integers(0, 3)) == 0
    codes = (0, 1) if use == "sync" else (0,)
    nothing = () if use in ("report", "scripts") else about  # where no run is left, the folder is named
    anywhere = use == "from" or "local_results_path" in said
    return Case(command, argv, nothing, prepare, ("results",), anywhere, codes, draw=painted, told=told)


STUDY_OF_RUNS = {
    "algorithms": sorted(alg for alg, env, _ in RUNS.values() if env != "predator_prey"),
    "environments": ["two_step", "matrix_game"], "seeds": 1, "results": "results", "overrides": {"t_max": 16},
}  # fmt: skip


def change_of(bases: Bases, file: str, name: str) -> st.SearchStrategy[damage.Damage]:
    """A change of a file of a run directory, by its kind."""
    kinds = [damage.bytes_change(), swapped(bases, some_of(bases.files[name]), name)]
    if file.endswith(".yaml"):
        kinds += [damage.yaml_change(HERE)] * 3
    elif "manifest" in file:
        kinds += [damage.json_change(HERE, sign=signed)] * 4 + [damage.json_change(HERE)]
    elif file.endswith((".json", ".jsonl")):
        kinds += [damage.json_change(HERE, lines=file.endswith("l"))] * 3
    elif file.endswith(".pt"):
        kinds += [weights_change()] * 4
    return st.one_of(*kinds)


def some_of(files: list[str]) -> list[str]:
    return [f for f in files if f.endswith((".th", ".pt", ".json", ".npy", ".yaml", ".jsonl"))]


def sign_again(state: Path) -> None:
    """Make the checksums and lengths of a state's manifests those of its files."""
    for path in state.glob("manifest.*.json"):
        try:
            manifest = json.loads(read_bytes(path))["manifest"]
            for entry in [manifest["parts"], *(manifest["replay"] or [])]:
                data = read_bytes(state / entry["name"])
                entry |= {"bytes": len(data), "checksum": hashlib.sha256(data).hexdigest()}
        except (ValueError, TypeError, KeyError, OSError, AttributeError, RecursionError):
            continue
        path.write_text(signed(json.dumps({"manifest": manifest})))


KINDS = {  # name: (strategy of the Bases, share of all cases)
    "overrides": (overrides, 0.3),
    "command_lines": (command_lines, 0.15),
    "configurations": (configurations, 0.2),
    "studies": (studies, 0.1),
    "checkpoints": (checkpoints, 0.12),
    "run_directories": (run_directories, 0.13),
}
