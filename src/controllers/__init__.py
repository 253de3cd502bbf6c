"""Controllers by name; EPyMARL's names."""

from utils.registry import lookup

REGISTRY = {
    "basic_mac": "controllers.basic_controller:BasicMAC",
    # Whether agents share weights is the business of the agent (`agent: rnn_ns`), not of the controller.
    "non_shared_mac": "controllers.basic_controller:BasicMAC",
}
METHODS = (
    "init_hidden", "select_actions", "step", "acting", "values", "unroll", "parameters", "cuda", "save_models",
    "load_models",
)  # fmt: skip


def mac_class(name):
    return lookup("controller (mac)", REGISTRY, name, methods=METHODS)
