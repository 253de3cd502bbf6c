"""Runs on disk as training leaves them, without training: our run directories and Sacred's folders."""

import json

import yaml

CONFIG = {
    "name": "qmix", "env": "two_step", "env_args": {}, "seed": 1, "t_max": 100, "batch_size_run": 8,
    "test_interval": 10, "test_nepisode": 8, "evaluation_epsilon": 0.0, "lr": 0.0005, "label": "", "evaluate": False,
    "checkpoint_path": "", "local_results_path": "results", "use_cuda": False, "save_model": True,
}  # fmt: skip
POINTS = {0: 0.0, 10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0}  # {step: test return}


def ours(folder, points=None, metric="test_return_mean", status="finished", stamp="20260101T000000Z", **config):
    """A run directory under `folder`; returns its path. points: {step: value}; config: keys that differ."""
    config = CONFIG | config
    points = POINTS if points is None else points
    path = folder / config["name"] / config["env"] / f"seed{config['seed']}_{stamp}"
    while path.exists():
        path = path.with_name(path.name.removesuffix("Z") + "Z_1")
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    records = [{"key": "loss", "value": 1.0, "t_env": step} for step in points]
    records += [{"key": metric, "value": value, "t_env": step} for step, value in points.items()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    summary = {
        "status": status,
        "reason": "the reason" if status == "failed" else None,
        "t_env": max(points, default=0),
    }
    summary |= {"wall_time_s": 60.0, "versions": {"python": "3.11"}, "commit": "abc"}
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def sacred(folder, number=1, points=None, metric="test_return_mean", status="COMPLETED", **config):
    """A folder as EPyMARL leaves it: results/sacred/<name>/<map>/<number>; returns its path."""
    config = CONFIG | config
    points = POINTS if points is None else points
    path = folder / "sacred" / config["name"] / config["env"] / str(number)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    run = {"status": status, "start_time": "2026-01-01T00:00:00.500000", "stop_time": "2026-01-01T01:00:00.500000"}
    run |= {"host": {"python_version": "3.9.1"}, "experiment": {"dependencies": ["torch==1.9", "numpy==1.21"]}}
    run |= {"fail_trace": ["Traceback\n", "ValueError: no\n"]} if status == "FAILED" else {}
    (path / "run.json").write_text(json.dumps(run))
    series = {"steps": list(points), "values": list(points.values()), "timestamps": ["t"] * len(points)}
    (path / "metrics.json").write_text(json.dumps({metric: series, "loss": series}))
    (path / "cout.txt").write_text("")
    return path
