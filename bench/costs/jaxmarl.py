"""JaxMARL's side, in a checkout of somebody's own (github.com/FLAIROx/JaxMARL): QMIX on SMAX.

Its `qmix_rnn.py` runs as it is, compiled as a whole; what is repaired, in its process and never in its files, is in
`REPAIRS`, what is set otherwise than in its own file in `SETTINGS`.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from costs.sides import BadInput, Made

REPAIRS = [
    "empty stand-ins for the packages hydra, omegaconf and wandb, which it imports and this measurement does not use"
]
SETTINGS = [
    "networks of our size (hidden 64, mixer 32, hypernetwork 64; its own: 512, 64, 256), no tests, no warm-up before "
    "its first update, room in its buffer for what it plays"
]
ENVS, STEPS, UPDATES, BATCH = 16, 128, 8, 32  # its own: environments, steps a round, updates a round, sequences


def whole(path: str, map_name: str, rounds: int, device: str, threads: int) -> Made:
    """Work: `rounds` rounds of training, from new weights, compiled before. Figures: "steps", "samples", "updates"."""
    for name in ("hydra", "omegaconf", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["hydra"].main = lambda **_: lambda function: function  # type: ignore[attr-defined]
    sys.modules["omegaconf"].OmegaConf = None  # type: ignore[attr-defined]
    sys.path.insert(0, path)
    try:
        import flashbax
        import jax
        import yaml

        source = Path(path, "baselines", "QLearning")
        spec = importlib.util.spec_from_file_location("qmix_rnn", source / "qmix_rnn.py")
        assert spec is not None and spec.loader is not None
        program: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
    except ImportError as error:
        raise BadInput(
            f"{error}; install what it needs (pip install -r requirements/smax.txt; pip install --no-deps flashbax), "
            "or give --peer-python with an interpreter that has it"
        ) from error
    make_buffer = flashbax.make_trajectory_buffer
    program.fbx = types.SimpleNamespace(
        make_trajectory_buffer=lambda **keys: make_buffer(**keys | {"min_length_time_axis": 1})
    )
    config = yaml.safe_load((source / "config" / "alg" / "ql_rnn_smax.yaml").read_text())
    config |= {
        "MAP_NAME": map_name, "HIDDEN_SIZE": 64, "MIXER_EMBEDDING_DIM": 32, "MIXER_HYPERNET_HIDDEN_DIM": 64,
        "TOTAL_TIMESTEPS": rounds * ENVS * STEPS, "NUM_ENVS": ENVS, "NUM_STEPS": STEPS, "NUM_EPOCHS": UPDATES,
        "BUFFER_BATCH_SIZE": BATCH, "BUFFER_SIZE": rounds * ENVS, "LEARNING_STARTS": 0,
        "TEST_DURING_TRAINING": False, "WANDB_MODE": "disabled",
    }  # fmt: skip
    env, _ = program.env_from_config(config)
    train = jax.jit(program.make_train(config, env)).lower(jax.random.PRNGKey(0)).compile()

    def work() -> dict:
        out = jax.block_until_ready(train(jax.random.PRNGKey(1)))
        updates = int(out["runner_state"][0].grad_steps)
        return {"steps": rounds * ENVS * STEPS, "updates": updates, "samples": updates * BATCH * STEPS}

    work()
    return work, {"repairs": REPAIRS, "settings": SETTINGS}
