"""Learners by name; EPyMARL's names."""

from utils.registry import lookup

REGISTRY = {
    "q_learner": "learners.q_learner:QLearner",
    "qtran_learner": "learners.qtran_learner:QTranLearner",
}
METHODS = ("update", "outcomes", "cuda", "save_models", "load_models", "state_dict", "load_state_dict", "values")


def learner_class(name):
    return lookup("learner", REGISTRY, name, methods=METHODS)
