"""What the learned Q_jt of a Gaussian squeeze knows, beside what the agents make of it."""

import logging

import numpy as np
import pytest
import squeeze_joint_value as study
from command import here, words

from parts import Parts, readers
from utils.config import load_from
from utils.logging import Logger


@pytest.fixture
def run(tmp_path, capsys):
    def make(algorithm):
        done = here(capsys, words(algorithm, "gaussian_squeeze", tmp_path, "env_args.n_actions=4", "save_model=True"))
        assert done.code == 0, done.err
        return str(done.path)

    return make


@pytest.mark.parametrize("algorithm", ["qtran_base", "qtran_alt"])
def test_the_ascent_ends_where_no_agent_can_raise_q_jt(algorithm, run):
    loaded = {"checkpoint_path": (path := run(algorithm)), "evaluate": True, "use_cuda": False}
    parts = Parts(load_from(study.Path(path), loaded, readers).values, Logger(logging.getLogger("test")))
    rng = np.random.default_rng(0)
    s = rng.uniform(0, 0.2, size=(5, parts.env.config.n_agents))
    u = study.ascend(parts, s, 3, rng)
    reached = study.q_jt(parts, s, u)
    for agent in range(s.shape[1]):
        for action in range(4):
            other = u.copy()
            other[:, agent] = action
            assert (study.q_jt(parts, s, other) <= reached + 1e-5).all()


def test_what_is_printed(run, capsys):
    assert study.main([run("qtran_base"), "--draws", "20", "--starts", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    agents, known, optimum = (float(line.split("±")[0].split()[-1]) for line in lines)
    assert max(agents, known) <= optimum


def test_a_run_that_it_cannot_read(run, tmp_path, capsys):
    assert study.main([run("vdn")]) == 2
    assert "give one of QTRAN on gaussian_squeeze" in capsys.readouterr().err
    assert study.main([str(tmp_path / "nowhere")]) == 2
