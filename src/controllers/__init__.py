"""Controllers by name; EPyMARL's names."""

from utils.registry import lookup

REGISTRY = {
    "basic_mac": "controllers.basic_controller:BasicMAC",
    # Whether agents share weights is the business of the agent (`agent: rnn_ns`), not of the controller.
    "non_shared_mac": "controllers.basic_controller:BasicMAC",
}


def mac_class(name):
    return lookup("controller (mac)", REGISTRY, name)
