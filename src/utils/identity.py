"""Which keys of a configuration tell two runs apart, and which must agree for a fair comparison."""

import json

NO_MATTER = {
    "name", "seed", "env_args.seed", "env_args.timeout", "env_args.restart_every", "env_args.replay_dir",
    "env_args.replay_prefix", "env_args.debug", "label", "hypergroup", "repeat_id", "preset", "local_results_path",
    "checkpoint_path", "load_step", "evaluate", "render", "save_replay", "env_workers", "use_cuda", "buffer_cpu_only",
    "num_threads", "use_tensorboard", "log_interval", "runner_log_interval", "learner_log_interval",
}  # fmt: skip
NO_MATTER_AT_ALL = ("mongo", "wandb", "use_wandb", "save_model")  # the beginnings of more such keys
# Keys that must agree between the algorithms of a task for a fair comparison, and all of env_args.
FAIRNESS = (
    "env", "t_max", "batch_size_run", "test_interval", "test_nepisode", "evaluation_epsilon", "common_reward",
    "reward_scalarisation",
)  # fmt: skip
NOT_SET = "not set"


def matters(key):
    """Whether a key, dotted under env_args, can change what is learned."""
    return key not in NO_MATTER and not str(key).startswith(NO_MATTER_AT_ALL)


def flat(values):
    """{dotted key: value} of a complete configuration."""
    env_args = values.get("env_args")
    own = {key: value for key, value in values.items() if key != "env_args"}
    return own | {f"env_args.{key}": v for key, v in (env_args if isinstance(env_args, dict) else {}).items()}


def text(value):
    """A value as text, the same after it has been through YAML (tuples become lists)."""
    return json.dumps(value, sort_keys=True, default=str)


def short(value, most=24):
    """A configuration's value as a few characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"
