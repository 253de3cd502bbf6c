"""Agent networks by name; EPyMARL's names."""

from utils.registry import lookup

REGISTRY = {
    "rnn": "modules.agents.rnn_agent:RNNAgent",
    "rnn_ns": "modules.agents.rnn_ns_agent:RNNNSAgent",
}
METHODS = ("init_hidden", "forward", "acting", "unroll")


def agent_class(name):
    return lookup("agent", REGISTRY, name, methods=METHODS)
