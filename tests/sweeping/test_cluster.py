"""cluster.yaml: read, replaced by flags, and refused."""

import dataclasses
from types import SimpleNamespace

import pytest
from command import ROOT

from sweeping.cluster import DEFAULTS, Cluster, read_cluster
from sweeping.submission import Order
from utils.args import ConfigError
from utils.yaml_file import read_yaml


@pytest.fixture
def beside(tmp_path):
    """beside(text): the path of a study that has this cluster.yaml beside it."""

    def write(text):
        (tmp_path / "cluster.yaml").write_text(text)
        return tmp_path / "study.yaml"

    return write


def test_later_layers_win(beside, tmp_path):
    path = beside("jobs: 3\nhours: 2\nslurm: {partition: low, nice: 5}\nk8s: {volume: data}\nray:\n")
    flags = {"engine": "slurm", "gpus_per_run": None}
    got = read_cluster(path, None, ["hours=4", "slurm.partition=high"], flags, "--exclusive --mem-per-cpu=2G")
    assert (got.engine, got.jobs, got.hours, got.warning_seconds) == ("slurm", 3, 4, None)
    assert got.slurm == {"partition": "high", "nice": 5, "exclusive": True, "mem-per-cpu": "2G"}
    assert (got.k8s.volume, got.k8s.results, got.ray.address) == ("data", "/results", None)
    (tmp_path / "other.yaml").write_text("jobs: 7")
    assert read_cluster(path, str(tmp_path / "other.yaml"), [], {}).jobs == 7
    assert read_cluster(tmp_path / "nowhere" / "study.yaml", None, [], {}).jobs is None


def test_every_problem_is_told_at_once(beside):
    text = "enigne: slurm\njobs: two\nhours: -1\nk8s: {imgae: a, ray_workers: x}\nray: 3\ncontainer: {by: docker}\n"
    with pytest.raises(ConfigError) as error:
        read_cluster(beside(text + "slurm: {array: 1-3, output: a}\n"), None, [], {})
    told = str(error.value)
    for said in (
        "unknown key 'enigne'; known: engine, jobs,",
        "did you mean 'engine'?",
        "jobs: 'two' is text, must be a whole number",
        "hours: -1 must be at most 10000 and above 0",
        "unknown key 'k8s.imgae'",
        "k8s.ray_workers: 'x' is text",
        "ray: 3 must be a mapping",
        "container.by: 'docker' is not one of srun, apptainer",
        "slurm.array: is set by the sweep; give jobs",
        "slurm.output: is set by the sweep",
    ):
        assert said in told, told


@pytest.mark.parametrize(
    "text, said",
    [
        ("[1, 2]", "holds list, not `key: value` lines"),
        ("a: [", "not valid YAML"),
        ("engine: lsf", "engine: 'lsf' is not one of local, slurm, ray, k8s"),
        ('slurm: {partition: "a\\nrm -r ."}', "must be text of one line"),
        ('slurm: {"part ition": gpu}', "slurm: 'part ition' is no flag of sbatch"),
        ("slurm: {-p: gpu}", "slurm: '-p'"),
        ("slurm: {p: gpu}", "slurm: 'p': write the flag's long name: partition, not p"),
        ("slurm: {1: 2}", "slurm: '1' is no flag of sbatch"),
        ("k8s: {node_selector: {a: [1]}}", "k8s.node_selector: {'a': [1]} must have text as keys"),
        ('python: "a\\nb"', "python: 'a\\nb' must be text of one line"),
        ("hours: 1.0e+300", "hours: 1e+300 must be at most 10000"),
        ("gpus_per_run: 0.3", "gpus_per_run 0.3: must be a fraction"),
    ],
)
def test_bad_files(text, said, beside):
    with pytest.raises(ConfigError, match="cluster.yaml|gpus_per_run") as error:
        read_cluster(beside(text), None, [], {})
    assert said in str(error.value)


@pytest.mark.parametrize(
    "words, flags, sbatch, where",
    [
        (["jobs=0"], {"engine": None}, None, "--set:\n  jobs: 0"),
        ([], {"engine": "slrum"}, None, "--engine:\n  engine: 'slrum'"),
        ([], {"engine": None}, "--array=3", "--sbatch:\n  slurm.array: is set by the sweep"),
        (["hours=-1"], {"gpus_per_run": 0.5}, None, "--set, --gpus-per-run:\n  hours: -1"),
    ],
)
def test_the_command_line_is_blamed_for_its_own(words, flags, sbatch, where, beside):
    with pytest.raises(ConfigError) as error:
        read_cluster(beside("jobs: 2\n"), None, words, flags, sbatch)
    assert str(error.value).startswith(where)


def test_a_flag_of_sbatch_is_one_key_with_dashes_or_without(beside):
    assert read_cluster(beside("slurm: {--partition: gpu}"), None, [], {}).slurm == {"partition": "gpu"}


@pytest.mark.parametrize(
    "share, runs_per_job, gpus",
    [(None, None, 0), (0, None, 0), (0.5, None, 1), (0.167, None, 1), (0.143, None, 1), (0.335, None, 1), (0.25, 6, 2)]
    + [(1, None, 1), (1, 3, 3), (2, None, 2), (2, 2, 4)],
)
def test_the_gpus_of_a_job(share, runs_per_job, gpus):
    """A share that is rounded, 0.167, asks for no second GPU."""
    order = SimpleNamespace(cluster=SimpleNamespace(gpus_per_run=share, runs_per_job=runs_per_job))
    order.runs_per_job = Order.runs_per_job.fget(order)
    assert Order.gpus_per_job.fget(order) == gpus


def test_defaults_are_whole():
    defaults = read_yaml(DEFAULTS)
    assert list(defaults) == [field.name for field in dataclasses.fields(Cluster)]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "clusters").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_of_the_documentation(path):
    assert read_cluster(ROOT / "studies" / "two_step.yaml", str(path), [], {}).engine == path.stem
