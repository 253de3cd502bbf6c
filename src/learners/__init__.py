"""Learners by name; EPyMARL's names."""

from utils.registry import lookup

REGISTRY = {
    "q_learner": "learners.q_learner:QLearner",
    "qtran_learner": "learners.qtran_learner:QTranLearner",
    "qplex_learner": "learners.qplex_learner:QPLEXLearner",
    "wqmix_learner": "learners.wqmix_learner:WQMixLearner",
    "resq_learner": "learners.resq_learner:ResQLearner",
}
METHODS = ("update", "outcomes", "cuda", "save_models", "load_models", "state_dict", "load_state_dict", "values")


def learner_class(name):
    return lookup("learner", REGISTRY, name, methods=METHODS)
