"""Stands for main.py where a test is about who starts it: it ends as its name says, soon.

PRETENDED is a folder with <name>.yaml, the configuration that a run of that name leaves, and `starts`, a line for each.
"""

import ast
import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

RECORD = {"key": "epsilon", "value": 1.0, "episode": 0}


def value_of(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def write_summary(status):
    (path / "summary.json").write_text(json.dumps({"status": status, "wall_time_s": 20.0}))


def end(status, code):
    write_summary(status)
    os._exit(code)


resumed = None if "with" in sys.argv else Path(sys.argv[sys.argv.index("--resume") + 1])
if resumed:
    values = yaml.safe_load((resumed / "config.yaml").read_text())
else:
    assert "--resume=latest" in sys.argv
    values = {key: value_of(text) for key, text in (w.split("=", 1) for w in sys.argv[sys.argv.index("with") + 1 :])}
name, seed, folder = values["name"], values["seed"], Path(os.environ["PRETENDED"])
with open(folder / "starts", "a") as starts:
    starts.write(f"{name} {seed} {os.environ['OMP_NUM_THREADS']}\n")
with open(folder / "environments", "a") as environments:
    shown = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")}
    environments.write(json.dumps(shown) + "\n")
if resumed:
    (folder / "resumed").write_text(str(resumed))
times = (folder / "starts").read_text().count(f"{name} {seed} ")
if name == "bad input":
    print("error: configuration:\n  t_max = 1 is too short\n  and so on", file=sys.stderr)
    sys.exit(2)
path = resumed or Path(values["local_results_path"], name, "task", f"seed{seed}_{time.time_ns()}")
path.mkdir(parents=True, exist_ok=True)
(path / "config.yaml").write_text((folder / f"{name}.yaml").read_text().replace("seed: 1\n", f"seed: {seed}\n"))
write_summary("running")
print(f"run directory: {path}", flush=True)
if name == "fails" or (name == "fails once" and times == 1):
    print("[ERROR 12:00:00] one\nTraceback\n[ERROR 12:00:01] failed: the loss is nan", file=sys.stderr, flush=True)
    end("failed", 1)
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "unfinished":
    sys.exit(0)
if name == "slow to start":  # and then 100 steps a second
    time.sleep(1.5)
    keys = ["epsilon", "test_return_mean", *["epsilon"] * 20]
    found = [RECORD | {"key": key, "t_env": 8 * i, "time": time.time() + 0.08 * i} for i, key in enumerate(keys)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    time.sleep(60)
if name in ("long", "deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN if name == "deaf" else lambda *_: end("interrupted", 143))
    with open(path / "metrics.jsonl", "w") as metrics:
        for i in range(3):
            metrics.write(json.dumps(RECORD | {"t_env": 100 * i, "time": time.time() + i}) + "\n")
        metrics.write('{"key": "eps')
    time.sleep(60)
write_summary("finished")
