"""Whole runs: what each algorithm leaves on each environment, repeats and learns."""

import json
import logging
import math
import re
import shutil
import time
from types import SimpleNamespace

import matplotlib.image
import pytest
import torch
import yaml
from command import CONFIG, files, full_disk, here, toy_config, words
from PIL import Image

import envs
from envs import REGISTRY
from learners.value_learner import ValueLearner
from parts import Parts, readers
from tables import draw
from training import note_on_updates
from utils.args import ConfigError
from utils.config import load, parse_overrides
from utils.config_files import environment_of, names
from utils.logging import Logger
from utils.resume_state import StateFolder
from utils.version import VERSION

ALGORITHMS = names("algs")
ENVIRONMENTS = [name for name in names("envs") if not envs.env_class(environment_of(name)).install]
SIX = ["iql", "vdn", "qmix", "qatten", "qtran_base", "qtran_alt"]
EPYMARL_METRICS = {
    "return_mean", "return_std", "ep_length_mean", "epsilon", "test_return_mean", "test_return_std",
    "test_ep_length_mean", "loss", "td_loss", "grad_norm", "td_error_abs",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """An empty tables.png: a real one takes a second."""
    monkeypatch.setattr("tables.draw", lambda learned, path, title: path.touch())


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(REGISTRY, "toy", "toy_env:Toy")


# ---- files


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm_runs_on_every_environment_and_leaves_its_files(alg, env, tmp_path, capsys):
    run = here(capsys, words(alg, env, tmp_path))
    assert run.code == 0, run.err
    assert run.path.parent == tmp_path / alg / env
    weights = ["agent.th", "checksums.json", "meta.json", "opt.th"] + ([] if alg.startswith("iql") else ["mixer.th"])
    further = ["central"] * ("_qmix" in alg) + ["central", "residual"] * alg.startswith("resq")
    weights += [f"{name}_{part}.th" for name in further for part in ("agent", "mixer")]
    weights += ["reward_stats.th"] if env == "matrix_game" else []  # its YAML standardises rewards
    steps = sorted({m["t_env"] for m in run.metrics})
    expected = ["config.yaml", "log.txt", "metrics.jsonl", "summary.json", "claims/000001.json"]
    expected += ["state/manifest.2.json", "state/parts.1.pt"]
    expected += [f"checkpoints/{t}/{w}" for t in (steps[0], steps[-1], "best") for w in weights]
    expected += ["tables.json", "tables.png"] if env == "matrix_game" else []
    assert files(run.path) == sorted(expected)
    assert files(tmp_path / "sacred") == [
        f"{alg}/{env}/1/{f}" for f in ("config.json", "cout.txt", "metrics.json", "run.json")
    ]
    metrics = run.metrics
    assert all(set(m) == {"key", "value", "t_env", "episode", "time"} for m in metrics)
    keys = {m["key"] for m in metrics}
    assert keys >= EPYMARL_METRICS
    assert not alg.startswith("qtran") or keys >= {"opt_loss", "nopt_loss"}
    assert metrics[-1]["episode"] > 0


def test_the_summary_says_how_it_went(tmp_path, capsys):
    run = here(capsys, words("vdn", "two_step", tmp_path))
    summary = run.summary
    assert (summary["status"], summary["seed"], summary["t_env"]) == ("finished", 1, 24)
    assert summary["wall_time_s"] > 0 and summary["env_steps_per_s"] > 0
    last = {m["key"]: m["value"] for m in run.metrics if m["key"].startswith("test_")}
    assert summary["test"] == last and "test_return_mean" in last
    assert summary["versions"].keys() == {"qtran", "python", "torch", "numpy"}
    assert summary["versions"]["qtran"] == VERSION
    assert summary["commit"] is None or len(summary["commit"].rstrip("+")) == 40


def test_the_config_left_is_complete_and_the_log_has_what_came_before_it(tmp_path, capsys):
    run = here(capsys, words("qtran_alt", "two_step", tmp_path, "seed=null"))
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    explained = here(capsys, ["--from", run.path, "--explain"]).out
    assert all(key in explained for key in config.keys() - {"env_args"})
    assert str(config["seed"]) in run.err and f"seed{config['seed']}_" in run.path.name
    log = (run.path / "log.txt").read_text()
    assert f"seed={config['seed']} (chosen now" in log and "GiB on cpu" in log


@pytest.mark.parametrize("task, env_args", [("climbing", ["env_args.key=climbing"]), ("matrix_game", [])])
def test_the_folder_is_named_by_the_key_where_there_is_one(task, env_args, tmp_path, capsys):
    run = here(capsys, words("iql", "matrix_game", tmp_path, *env_args))
    assert run.path.parent == tmp_path / "iql" / task
    assert (tmp_path / "sacred" / "iql" / task / "1" / "run.json").exists()


GAMES = {
    "two states": "env_args.key=two_state",
    "3 agents": "env_args.payoff=[[[1,2],[3,4],[5,9]]]",
    "unequal": "env_args.payoff=[[1,2,3],[4,5,6]]",
}


@pytest.mark.parametrize(
    "alg, game",
    [(alg, game) for alg in SIX for game in GAMES] + [(a, "unequal") for a in ("qplex", "ow_qmix", "cw_qmix", "resq")],
)
def test_tables_of_every_shape_of_game(alg, game, tmp_path, capsys):
    run = here(capsys, words(alg, "matrix_game", tmp_path, GAMES[game]))
    assert run.code == 0, run.err
    tables = json.loads((run.path / "tables.json").read_text())
    for table in tables.get("states", [tables]):
        payoff = torch.tensor(table["payoff"])
        assert [len(q) for q in table["q_i"]] == list(payoff.shape)
        greedy = [max(range(len(q)), key=q.__getitem__) for q in table["q_i"]]
        assert table["greedy_joint_action"] == greedy
        assert table["greedy_payoff"] == payoff[tuple(greedy)] and table["best_payoff"] == payoff.max()
        q_prime = torch.tensor(table["q_prime"])
        first = (0,) * payoff.dim()
        assert q_prime.shape == payoff.shape
        assert float(q_prime[first]) == pytest.approx(sum(q[0] for q in table["q_i"]), abs=1e-5)
        assert (table["q_jt"] is None) == (alg == "iql")
        assert (table["v_jt"] is not None) == alg.startswith("qtran")
        assert ("q_jt_heads" in table) == (alg == "qtran_alt")
        if alg == "qtran_alt":
            heads = torch.tensor(table["q_jt_heads"])
            assert heads.shape == (payoff.dim(), *payoff.shape)
            torch.testing.assert_close(heads.mean(dim=0), torch.tensor(table["q_jt"]))


@pytest.mark.parametrize("alg, game", [("qtran_alt", game) for game in GAMES] + [("iql", "unequal")])
def test_the_picture_is_a_picture(alg, game, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tables.draw", draw)
    run = here(capsys, words(alg, "matrix_game", tmp_path, GAMES[game]))
    height, width, _ = matplotlib.image.imread(run.path / "tables.png").shape
    assert run.code == 0 and 200 < height < 2000 and 500 < width < 3000


def test_sacreds_files_read_as_epymarls_plot_script_reads_them(tmp_path, capsys):
    for seed in (1, 2):
        here(capsys, words("qmix", "two_step", tmp_path, f"seed={seed}"))
    found = sorted((tmp_path / "sacred").glob("**/metrics.json"))
    assert [f.parent.name for f in found] == ["1", "2"]
    groups = set()
    for file in found:
        metrics, config = json.loads(file.read_text()), json.loads((file.parent / "config.json").read_text())
        steps, values = metrics["test_return_mean"]["steps"], metrics["test_return_mean"]["values"]
        assert len(steps) == len(values) > 1 and all(isinstance(v, float) for v in values)
        del config["seed"]
        env_args = config["env_args"]
        task = env_args.get("map_name", env_args.get("key"))
        groups.add((str(env_args), f"{config['env']}_{task}", config["common_reward"], config["reward_scalarisation"]))
        groups.add((config["name"], str(config)))
    assert len(groups) == 2  # both seeds fall into one curve


def test_each_agents_own_reward_has_epymarls_metrics(toy, tmp_path, capsys):
    config = toy_config(tmp_path / "c.yaml", "iql", pays_each=True, common_reward=False)
    run = here(capsys, ["--from", config])
    assert run.code == 0, run.err
    names_ = ("agent_0_return_mean", "agent_1_return_std", "total_return_mean", "test_total_return_mean")
    assert {*names_, "test_battle_won_mean"} <= run.series.keys()
    assert "return_mean" not in run.series


# ---- the same again


@pytest.mark.parametrize("alg", SIX)
def test_same_seed_same_weights_other_seed_other_weights(alg, tmp_path, capsys):
    def weights(seed):
        run = here(capsys, words(alg, "predator_prey", tmp_path, f"seed={seed}"))
        folder = run.path / "checkpoints" / str(run.summary["t_env"])
        state = {f.name: torch.load(f) for f in folder.glob("*.th") if f.name != "opt.th"}
        return {f"{file}.{k}": v for file, s in state.items() for k, v in s.items()}, run.figures

    (first, series), (second, series_again), (other, _) = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[k], second[k]) for k in first) and first.keys() == second.keys()
    assert series == series_again
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("alg", ["qtran_alt", "qmix_ns"])
@pytest.mark.parametrize("workers", ["False", "True"])
def test_the_config_left_repeats_the_run(alg, workers, tmp_path, capsys):
    run = here(capsys, words(alg, "predator_prey", tmp_path, "seed=None", f"env_workers={workers}"))
    again = here(capsys, ["--from", run.path / "config.yaml"])
    assert again.code == 0 and again.path != run.path
    assert again.figures == run.figures


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_environments_in_worker_processes(env, tmp_path, capsys):
    run = here(capsys, words("qtran_alt", env, tmp_path, "env_workers=True"))
    assert run.code == 0, run.err
    assert (run.path / "tables.json").exists() == (env == "matrix_game")


# ---- checkpoints


@pytest.fixture
def trained(tmp_path, capsys):
    """A short run whose checkpoints are at t_env 2, 14 and 24."""
    return here(capsys, words("qmix", "matrix_game", tmp_path / "first", "save_model_interval=12"))


@pytest.mark.parametrize("layout", ["run directory", "checkpoints", "epymarl"])
def test_evaluate_plays_the_loaded_checkpoint(layout, trained, tmp_path, capsys):
    folder = trained.path
    if layout != "run directory":
        folder = folder / "checkpoints"
    if layout == "epymarl":  # results/models/<unique token>/<t_env>, with no file of ours beside the weights
        folder = shutil.copytree(folder, tmp_path / "models" / "qmix_seed1_matrix_game")
        for ours in [*folder.glob("*/meta.json"), *folder.glob("*/checksums.json")]:
            ours.unlink()
    run = here(capsys, words("qmix", "matrix_game", tmp_path, f"checkpoint_path={folder}", "evaluate=True"))
    assert run.code == 0, run.err
    assert f"loaded {folder}" in run.err and "/24" in run.err
    assert {t for t, _ in run.series["test_return_mean"]} == {24}
    assert run.series["test_return_mean"][-1][1] == trained.series["test_return_mean"][-1][1]
    assert not (run.path / "checkpoints").exists()
    assert run.summary["env_steps_per_s"] == 0


def test_a_run_that_was_trained_with_fast_kernels_can_be_played(tmp_path, capsys):
    first = here(capsys, words("qmix", "two_step", tmp_path))
    asked = ("evaluate=True", "kernels=fast", f"local_results_path={tmp_path / 'second'}")
    run = here(capsys, ["--from", first.path, "with", *asked])
    assert run.code == 0 and run.summary["kernels"] == "plain", run.err


def test_a_checkpoint_in_a_folder_at_the_root_has_no_run_beside_it():
    parts = SimpleNamespace(values={}, args=SimpleNamespace(agent="rnn", mixer=None))
    assert Parts._other_keys(parts, "/ckpt") == ""


def test_evaluation_says_what_it_does_not_do(trained, tmp_path, capsys):
    asked = ("evaluate=True", "batch_size_run=3", "absolute_metric=True", f"local_results_path={tmp_path / 'second'}")
    run = here(capsys, ["--from", trained.path, "with", *asked])
    assert run.code == 0 and "as many updates" not in run.err
    assert run.err.count("absolute_metric=True does nothing with evaluate=True") == 1
    before = files(tmp_path)
    run = here(capsys, ["--from", trained.path, "--profile", "with", *asked])
    assert run.code == 2 and "--profile" in run.err and "evaluate=True" in run.err and files(tmp_path) == before


def test_load_step_takes_the_nearest_and_training_goes_on_from_there(trained, tmp_path, capsys):
    values = (f"checkpoint_path={trained.path}", "load_step=13", "t_max=40")
    run = here(capsys, words("qmix", "matrix_game", tmp_path, *values))
    assert "checkpoints/14" in run.err
    assert run.summary["t_env"] == 40 and min(m["t_env"] for m in run.metrics) > 14


def test_render_prints_the_game(trained, tmp_path, capsys):
    values = (f"checkpoint_path={trained.path}", "evaluate=True", "render=True")
    run = here(capsys, words("qmix", "matrix_game", tmp_path, *values))
    assert "game state 0" in run.out
    with Image.open(run.path / "render.gif") as film:
        assert film.size == (400, 400)


def test_save_model_false_writes_none(tmp_path, capsys):
    run = here(capsys, words("vdn", "two_step", tmp_path, "save_model=False"))
    assert run.code == 0 and not (run.path / "checkpoints").exists()


def test_a_run_too_short_to_learn_says_so(tmp_path, capsys):
    run = here(capsys, words("vdn", "two_step", tmp_path, "t_max=4", "batch_size=16"))
    assert run.code == 0 and "nothing was learned" in run.err


def test_a_run_that_begins_to_learn_too_late_says_so_before_and_after(tmp_path, capsys):
    run = here(capsys, words("vdn", "two_step", tmp_path, "t_max=24", "learning_starts=100"))
    said = [line for line in run.err.splitlines() if "learning_starts = 100" in line]
    assert run.code == 0 and len(said) == 2
    assert "nothing is learned before t_max = 24" in said[0] and "nothing was learned" in said[1]
    assert "learning_starts" not in here(capsys, words("vdn", "two_step", tmp_path, "t_max=24")).err


def test_a_full_disk_stops_the_run_with_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("learners.value_learner.save_weights", full_disk)
    run = here(capsys, words("vdn", "matrix_game", tmp_path))
    assert run.code == 1 and run.summary["status"] == "failed" and "Traceback" not in run.err
    assert "the disk is full: checkpoints/best not written (OSError: [Errno 28]" in run.last_line
    assert run.summary["t_env"] == 2 and not list((run.path / "checkpoints").iterdir())  # nor half of one


def test_a_disk_that_refuses_for_another_reason_costs_warnings_until_the_end(tmp_path, capsys, monkeypatch):
    def refused(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("learners.value_learner.save_weights", refused)
    monkeypatch.setattr("tables.write_json", refused)
    run = here(capsys, words("vdn", "matrix_game", tmp_path))
    assert run.code == 1 and run.summary["status"] == "failed" and "Traceback" not in run.err
    assert run.err.count("what was written before stays") >= 3 and "greedy joint action" in run.out
    assert "could not be written: checkpoint 24 (OSError: [Errno 5]" in run.last_line
    assert "tables (OSError: [Errno 5]" in run.last_line
    assert not list((run.path / "checkpoints").iterdir())


@pytest.mark.parametrize("room_comes", [True, False])
def test_a_run_may_wait_for_room_on_the_disk(room_comes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keeper.PAUSE_SECONDS", 0.01)
    tries, write = [], StateFolder.write

    def full(states, *args, **more):
        tries.append(1)
        if len(tries) < 4 or not room_comes:
            full_disk()
        write(states, *args, **more)

    monkeypatch.setattr(StateFolder, "write", full)
    run = here(capsys, words("vdn", "two_step", tmp_path, "on_disk_full=pause"))
    assert run.err.count("waiting for room") == 1 and "the state at t_env 24" in run.err
    assert (run.code, len(tries)) == ((0, 4) if room_comes else (1, 121))
    assert room_comes or "the disk is full: the state at t_env 24 not written" in run.summary["reason"]


def test_records_that_are_lost_fail_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("recording.sinks.JsonlSink._append", full_disk)
    run = here(capsys, words("vdn", "two_step", tmp_path, "save_model=False"))
    assert run.code == 1 and run.summary["status"] == "failed"
    lost = int(re.search(r"(\d+) records of metrics.jsonl are lost", run.summary["reason"])[1])
    assert lost > 0 and "the disk is full" in run.summary["reason"] and run.summary["reason"] in run.last_line


# ---- what goes wrong on the way


@pytest.mark.parametrize(
    "fault, alg, reason",
    [
        ("nan_reward", "vdn", "t_env 18, step 2 of training: the environment's reward is not finite (nan)"),
        ("inf_obs", "qtran_alt", "t_env 18, step 2 of training: the environment's obs is not finite (inf)"),
        ("nan_state", "qmix", "t_env 18, step 2 of training: the environment's state is not finite (nan)"),
        ("nan_first_obs", "iql", "t_env 18, step 0 of training: the environment's obs is not finite (nan)"),
        ("huge_reward", "qtran_base", "update 2 at t_env 24: not finite: loss, td_loss, grad_norm (loss=inf"),
        ("raise", "vdn", "RuntimeError: the game's engine has stopped"),
    ],
)
def test_a_fault_in_training_stops_at_once(fault, alg, reason, toy, tmp_path, capsys):
    # Rounds of training and of tests, 3 steps each: training up to t_env 6, test, 12, 18, test, 24.
    at = 15 if fault == "nan_first_obs" else 18
    run = here(capsys, ["--from", toy_config(tmp_path / "c.yaml", alg, fault=fault, at=at, save_model_interval=1)])
    last = run.last_line
    assert run.code == 1 and reason in last, run.err
    assert ("Traceback" in run.err) == (fault == "raise")
    assert run.summary["status"] == "failed" and reason in run.summary["reason"]
    assert sorted(f.name for f in (run.path / "checkpoints").iterdir()) == ["12", "18", "6", "best"]
    assert json.loads((tmp_path / "results/sacred" / alg / "toy/1/run.json").read_text())["status"] == "FAILED"


@pytest.mark.parametrize("updates", [1, 3])
def test_an_update_that_is_not_finite_leaves_its_batch(updates, toy, tmp_path, capsys):
    config = toy_config(tmp_path / "c.yaml", "vdn", fault="huge_reward", at=18, updates_per_run=updates, batch_size=4)
    run = here(capsys, ["--from", config])
    reason = run.summary["reason"]
    (file,) = (run.path / "nonfinite").iterdir()
    assert run.code == 1 and f"the batch is saved in {file}. on_nonfinite=skip" in reason
    assert re.search(r"reward: 0 to 1e\+30, mean .*; [^;]*is saved", reason)
    saved = torch.load(file, weights_only=True)
    assert file.name == "01_update_{}.pt".format(re.search(r"update (\d+) at", reason)[1]) and len(saved["reward"]) == 4
    assert saved["reward"].max() == torch.tensor(1e30) and saved["filled"].dtype == torch.bool


def test_a_bad_episode_may_be_left_out(toy, tmp_path, capsys):
    changes = dict(fault="nan_reward_once", at=8, on_nonfinite="skip", batch_size_run=2, t_max=24, test_interval=100)
    run = here(capsys, ["--from", toy_config(tmp_path / "c.yaml", "vdn", runner_log_interval=1, **changes)])
    assert run.code == 0 and run.summary["status"] == "finished", run.err
    assert "This episode is left out" in run.err and run.series["episodes_left_out"][-1][1] == 1
    assert [file.suffix for file in (run.path / "nonfinite").iterdir()] == [".pt"]
    assert all(math.isfinite(value) for points in run.series.values() for _, value in points)


def test_too_much_that_is_not_finite_ends_the_run(toy, tmp_path, capsys):
    changes = dict(fault="huge_reward", at=18, on_nonfinite="skip", t_max=3000)
    run = here(capsys, ["--from", toy_config(tmp_path / "c.yaml", "vdn", **changes)])
    assert run.code == 1 and "at most 10 in a row" in run.summary["reason"]
    assert len(list((run.path / "nonfinite").iterdir())) == 10


def test_the_networks_are_on_the_gpu_before_the_runner_is_made(tmp_path, monkeypatch):
    """A runner on worker processes makes the hidden states on the agents' device."""
    values = load("qmix", "two_step", {"seed": 1, "local_results_path": str(tmp_path)}, readers).values
    order = []

    def runner(*_):
        order.append("runner")
        raise ConfigError("far enough")

    monkeypatch.setattr("parts.Parts._device", lambda parts: "cuda")
    monkeypatch.setattr("parts.free_memory", lambda device: None)
    monkeypatch.setattr("parts.runner_class", lambda *_: runner)
    monkeypatch.setattr(ValueLearner, "cuda", lambda learner: order.append("cuda"))
    with pytest.raises(ConfigError, match="far enough"):
        Parts(values, Logger(logging.getLogger("test")))
    assert order == ["cuda", "runner"]


# ---- what it costs


def test_a_run_says_where_its_time_went_and_how_many_updates_it_made(tmp_path, capsys):
    run = here(capsys, words("vdn", "two_step", tmp_path, "updates_per_run=3", "learner_log_interval=1"))
    made = run.summary["updates"]
    assert re.search(rf"time: .*learning \d+ %.*; {made} updates", run.err) and made % 3 == 0
    assert run.series["updates"][-1][1] == made  # the last update is in the record
    seconds = run.summary["seconds"]
    assert all(seconds[part] > 0 for part in ("environment", "storing", "learning", "testing"))
    assert sum(seconds.values()) <= run.summary["wall_time_s"]
    assert 0 < sum(v[-1][1] for k, v in run.series.items() if k.startswith("time_")) <= 1.001
    assert run.series["epsilon"][-1][0] == run.summary["t_env"]


def test_what_is_done_before_the_run_begins_is_not_of_its_time(tmp_path, capsys, monkeypatch):
    made = Parts.__init__

    def slowly(*args, **keys):
        made(*args, **keys)
        time.sleep(1)

    monkeypatch.setattr(Parts, "__init__", slowly)
    run = here(capsys, words("vdn", "two_step", tmp_path))
    assert run.code == 0 and sum(run.summary["seconds"].values()) <= run.summary["wall_time_s"]


@pytest.mark.parametrize(
    "changes, said",
    [
        (["batch_size_run=4"], "2 times as many updates in the same number of steps; updates_per_run=2 keeps"),
        (["batch_size_run=32"], "0.25 times as many updates in the same number of steps; updates_per_run=16 keeps"),
        (["batch_size_run=4", "updates_per_run=1"], None),
        (["batch_size_run=8"], None),
        ([], None),
    ],
)
def test_another_number_of_environments_makes_another_number_of_updates(changes, said):
    config = load("vdn", "two_step", parse_overrides(changes), readers)
    note = note_on_updates(config.values, config.replaced)
    assert (note is None) if said is None else (said in note), note


def test_a_profile_is_a_trace_of_some_rounds(tmp_path, capsys):
    run = here(capsys, ["--profile", *words("vdn", "two_step", tmp_path, "t_max=400", "learner_log_interval=1")])
    trace = json.loads((run.path / "trace.json").read_text())
    names = {event.get("name", "") for event in trace["traceEvents"]}
    assert run.code == 0 and {"Optimizer.step#Adam.step", "aten::mm"} & names
    assert f"trace: {run.path / 'trace.json'}" in run.err


# ---- learning


@pytest.mark.parametrize("alg, seed", [("qtran_alt", 1), ("qtran_base", 1), ("vdn", 1)])
def test_qtran_solves_the_game_that_vdn_cannot(alg, seed, tmp_path, capsys):
    values = (f"seed={seed}", "use_cuda=False", "save_model=False", f"local_results_path={tmp_path}")
    shorter = ("t_max=8000", "updates_per_run=4", "lr=0.001")
    run = here(capsys, [f"--config={alg}", "--env-config=matrix_game", "with", *values, *shorter])
    greedy = json.loads((run.path / "tables.json").read_text())["greedy_payoff"]
    assert (greedy == 8) == (alg != "vdn")
    assert run.series["test_return_mean"][-1][1] == greedy


def test_every_environment_of_the_registry_has_a_yaml():
    configured = {environment_of(path.stem) for path in (CONFIG / "envs").glob("*.yaml")}
    assert configured >= set(REGISTRY)


def test_a_sigterm_that_python_has_swallowed_still_ends_the_run(toy, tmp_path, capsys):
    run = here(capsys, ["--from", toy_config(tmp_path / "c.yaml", "vdn", fault="swallow", at=5, save_model=True)])
    assert run.code == 143 and run.last_line.endswith("interrupted: SIGTERM")
    assert run.summary["status"] == "interrupted" and run.summary["t_env"] < 24
    assert list(run.path.glob("checkpoints/*/agent.th"))


@pytest.mark.parametrize("key", ["render", "save_replay"])
def test_what_only_an_evaluation_does_is_said(key, tmp_path, capsys):
    run = here(capsys, words("vdn", "two_step", tmp_path, f"{key}=True"))
    assert run.code == 0 and f"{key}=True does nothing without evaluate=True" in run.err
