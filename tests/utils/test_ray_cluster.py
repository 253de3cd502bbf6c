"""Ray clusters that cannot be had: one message. What they do where they can is in tests/runners/test_ray_runner.py."""

import importlib.util

import pytest

from utils import ray_cluster
from utils.args import ConfigError


def test_without_ray_the_pip_line_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="runner=ray needs the package 'ray'.*pip install .*requirements/ray.txt"):
        ray_cluster.check_installed("runner=ray")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nowhere", "is not an address: give host:port"),
        ("ray://a:1", "is not an address"),
        ("a:99999", "is not an address"),
        ("127.0.0.1:1", "nobody answers there"),
    ],
)
def test_no_cluster_at_the_address(address, says, monkeypatch):
    monkeypatch.setattr(ray_cluster, "check_installed", lambda what: None)
    with pytest.raises(ConfigError, match=f"ray_address = '{address}'.*{says}"):
        ray_cluster.RayCluster("ray_address", address, cpus=1)
