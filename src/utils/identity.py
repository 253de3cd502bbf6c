"""Which keys of a configuration tell two runs apart, which must agree for a fair comparison, and which may change in a
run that is resumed."""

import json
from collections.abc import Mapping
from typing import Any

NO_MATTER = {
    "name", "seed", "env_args.seed", "env_args.timeout", "env_args.restart_every", "env_args.replay_dir",
    "env_args.replay_prefix", "env_args.debug", "label", "hypergroup", "repeat_id", "preset", "local_results_path",
    "checkpoint_path", "load_step", "evaluate", "render", "render_format", "save_replay", "env_workers", "use_cuda",
    "buffer_cpu_only", "modules_path", "num_threads", "kernels", "use_tensorboard", "log_interval",
    "runner_log_interval", "learner_log_interval", "on_disk_full", "resume_minutes", "resume_interval",
    "keep_replay", "keep_checkpoints", "lease_seconds", "stop_seconds", "ray_address", "ray_actors", "absolute_metric",
}  # fmt: skip
# Keys that no report compares, but that tell the runs of a study apart.
TELLING = {"name", "seed", "env_args.seed", "checkpoint_path", "load_step", "evaluate", "absolute_metric"}
AS_IF_ABSENT = {"absolute_metric": False}  # such a run is the same as one of a version that had no such key
MACHINE = ("env_workers", "num_threads", "use_cuda", "kernels")  # keys that must agree too for the same bits
FIXED = TELLING | {
    "env_workers", "preset", "local_results_path", "render", "render_format", "save_replay", "repeat_id",
}  # fmt: skip
NO_MATTER_AT_ALL = ("mongo", "wandb", "use_wandb", "save_model")  # the beginnings of more such keys
# Keys that must agree between the algorithms of a task for a fair comparison, and all of env_args.
FAIRNESS = (
    "env", "t_max", "batch_size_run", "test_interval", "test_nepisode", "evaluation_epsilon", "common_reward",
    "reward_scalarisation",
)  # fmt: skip
NOT_SET = "not set"
JUDGED_BY = ("test_battle_won_mean", "test_return_mean", "test_total_return_mean")  # the first that a run has


def matters(key: object) -> bool:
    """Whether a key, dotted under env_args, can change what is learned."""
    return key not in NO_MATTER and not str(key).startswith(NO_MATTER_AT_ALL)


def may_change(key: str) -> bool:
    """Whether a run may be resumed with another value of a key, dotted under env_args."""
    return not matters(key) and key not in FIXED


def identity(values: dict, without: tuple = (), also: tuple = ()) -> str:
    """A configuration as text, equal where nothing differs that can change a result or tell two runs apart, nor any of
    the keys `also`.

    As JSON, so that one that has been through YAML (tuples become lists) is the same.
    """
    used = {k: v for k, v in flat(values).items() if k not in without and (counts(k) or k in also)}
    return text({k: v for k, v in used.items() if k not in AS_IF_ABSENT or v != AS_IF_ABSENT[k]})


def counts(key: str) -> bool:
    """Whether a key can change a result or tells two runs apart."""
    return key in TELLING or matters(key)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted key: value} of a complete configuration."""
    env_args = values.get("env_args")
    own = {key: value for key, value in values.items() if key != "env_args"}
    return own | {f"env_args.{key}": v for key, v in (env_args if isinstance(env_args, dict) else {}).items()}


def text(value: object) -> str:
    """A value as text, the same after it has been through YAML (tuples become lists)."""
    return json.dumps(value, sort_keys=True, default=str)
