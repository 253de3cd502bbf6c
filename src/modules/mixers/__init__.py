"""Mixers by name; EPyMARL's names."""

from utils.registry import lookup

REGISTRY = {
    "vdn": "modules.mixers.vdn:VDNMixer",
    "qmix": "modules.mixers.qmix:QMixer",
    "qatten": "modules.mixers.qatten:QattenMixer",
    "qtran_base": "modules.mixers.qtran:QTranBase",
    "qtran_alt": "modules.mixers.qtran:QTranAlt",
}


def mixer_class(name):
    return lookup("mixer", REGISTRY, name, methods=("forward",))
