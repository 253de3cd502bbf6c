"""Rounds in Ray actors: the same bits as in worker processes, whoever plays, and whoever is lost.

Real Ray: a cluster of two nodes on this machine, `pytest -m cluster tests/runners/test_ray_runner.py`.
"""

import logging
import os

import pytest
import toy_env
from helpers import make_runner
from test_parallel_runner import Log, learn, numbers, rounds, same

from envs.workers.worker_env import WorkerEnv
from runners.parallel_runner import ParallelRunner
from runners.ray_env import RayEnv
from runners.ray_runner import RayRunner
from utils.args import ConfigError, TrainingError
from utils.ray_cluster import INSTALL

pytest.importorskip("ray", reason=INSTALL)
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    yield two
    two.shutdown()


@pytest.fixture
def make(cluster):
    """make(cls, n_envs, staleness, actors, **keys of the Walk): a runner; closed at the end."""
    made = []

    def start(cls=RayRunner, n_envs=3, staleness=0, actors=2, **keys):
        config = toy_env.Walk.Config(**{"sleep": 0.0, "dies": 0, "folder": ""} | keys)
        if cls is RayRunner:
            env = RayEnv(toy_env.Walk, config, n_envs, 0, cluster.address, actors)
        else:
            env = WorkerEnv(toy_env.Walk, config, n_envs, 0)
        made.append(make_runner(cls, env, Log(), staleness))
        return made[-1]

    yield start
    for runner in made:
        runner.close()


def lose_in_the_middle(runner, lose):
    """Call lose() once, when the first episodes of the second round have come."""
    gather, lost = runner.env.gather, []

    def and_lose():
        episodes = gather()
        if runner.rounds == 2 and episodes and not lost:
            lost.append(1)
            lose()
        return episodes

    runner.env.gather = and_lose
    return lost


@pytest.mark.parametrize(("staleness", "actors"), [(0, 1), (0, 3), (2, 3)])
def test_it_plays_as_worker_processes_do(staleness, actors, make):
    """Twelve environments: two blocks, the second one short, and the actors' shares do not end where blocks do."""
    workers = make(ParallelRunner, 12, staleness)
    expected, counted = rounds(workers, 5, [1, 3]), numbers(workers)
    ray = make(RayRunner, 12, staleness, actors)
    assert same(expected, rounds(ray, 5, [1, 3]))
    assert counted == numbers(ray) and ray.env.restarts is None


@pytest.mark.parametrize("staleness", [0, 2])
def test_an_actor_that_is_killed_is_replaced_and_its_episodes_are_the_same(staleness, make, caplog):
    import ray as ray_

    workers = make(ParallelRunner, 6, staleness)
    expected = rounds(workers, 5, [3])
    ray = make(RayRunner, 6, staleness, sleep=0.02)
    lost = lose_in_the_middle(ray, lambda: ray_.kill(ray.env.slots[1].actor))
    with caplog.at_level(logging.WARNING, "qtran"):
        assert same(expected, rounds(ray, 5, [3]))
    assert lost and ray.env.restarts and "actor 1" in caplog.text
    assert numbers(workers)[:3] == numbers(ray)[:3]


@pytest.mark.parametrize("staleness", [0, 2])
def test_it_goes_on_from_a_state_as_if_it_had_never_stopped(staleness, make):
    """Also from one that worker processes have left: what is saved is the same."""
    expected = rounds(make(ParallelRunner, 3, staleness), 6, [2, 4])
    first = make(RayRunner, 3, staleness)
    begun = [first.run(), learn(first), first.run(), learn(first)][::2]
    state, weights = first.state_dict(), first.mac.agent.state_dict()
    weights = {name: value.clone() for name, value in weights.items()}
    first.close()
    second = make(RayRunner, 3, staleness, actors=1)
    second.load_state_dict(state)
    second.mac.agent.load_state_dict(weights)
    test = second.run(test_mode=True)
    assert same(expected, [*begun, test, *rounds(second, 4, [4])])


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 2])
def test_a_node_that_is_lost(staleness, make, cluster):
    """What played there is played again on the node that is left, which has no room for a new actor."""
    workers = make(ParallelRunner, 8, staleness)
    expected = rounds(workers, 6, [2])
    node = cluster.add_node(num_cpus=3)
    ray = make(RayRunner, 8, staleness, actors=6, sleep=0.02)
    lost = lose_in_the_middle(ray, lambda: cluster.remove_node(node, allow_graceful=False))
    assert same(expected, rounds(ray, 6, [2]))
    assert lost and ray.env.restarts and sum(slot.ready for slot in ray.env.slots) == 3
    assert numbers(workers)[:3] == numbers(ray)[:3]


def test_a_game_that_fails_all_the_time_ends_the_run(make, monkeypatch):
    ray = make(folder="always", dies=1)
    with pytest.raises(TrainingError, match="5 failures without a whole episode between them"):
        ray.run()
    assert ray.rounds == 0


def test_an_actor_that_is_lost_all_the_time_ends_the_run(make, monkeypatch):
    """Whoever plays environment 0 is killed."""
    ray = make(sleep=0.3)
    gather = ray.env.gather

    def and_kill():
        import ray as ray_

        slot = ray.env.carrier[0]
        if slot is not None and slot.ready:
            ray_.kill(slot.actor)
        return gather()

    monkeypatch.setattr(ray.env, "gather", and_kill)
    with pytest.raises(TrainingError, match="environment [0-9]: its actor was lost 5 times"):
        ray.run()


def test_a_worker_process_that_dies_is_replaced_inside_its_actor(make, tmp_path):
    expected = rounds(make(ParallelRunner), 4, [2])
    dying = make(dies=7, folder=str(tmp_path))
    assert same(expected, rounds(dying, 4, [2]))
    assert dying.env.restarts == len(list(tmp_path.iterdir())) > 0


def test_what_is_not_finite_ends_the_episode_alone(make):
    expected, bad = make(ParallelRunner).run(), make(folder="nan")
    bad.tolerance.skip = True
    batch = bad.run()
    assert batch.batch_size == 2 and bad.episodes == 2
    assert same([batch], [expected[[0, 2]]])


def test_nothing_is_left_behind(make, cluster):
    ray = make(sleep=0.01)
    ray.run()
    pids = descendants(os.getpid())
    ray.close()
    left = {pid: what for pid, what in descendants(os.getpid()).items() if pid in pids and "Rollouts" in what}
    assert not left


def descendants(pid):
    """{pid: command} of all processes below `pid`."""
    found = {}
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            try:
                with open(f"/proc/{folder}/stat") as file:
                    name, _, rest = file.read().partition(") ")
                with open(f"/proc/{folder}/cmdline") as file:
                    found[int(folder)] = (int(rest.split()[1]), file.read())
            except OSError:
                pass
    below = {pid}
    for _ in range(10):
        below |= {child for child, (parent, _) in found.items() if parent in below}
    return {child: found[child][1] for child in below - {pid}}


def test_more_actors_than_the_cluster_has_room_for(make):
    with pytest.raises(ConfigError, match="ray_actors = 9: each takes a CPU of the cluster, and it has 3; give at m"):
        make(n_envs=9, actors=9)
