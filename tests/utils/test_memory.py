"""Free memory: of the machine and of containers, whose files in the page cache do not count."""

import platform
import subprocess
import sys

import pytest
from command import ROOT

from utils.memory import free_memory

GB = 10**9


def machine(root, available=8 * GB, groups="0::/"):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1000} kB\n")
    (root / "proc/self/cgroup").write_text(groups + "\n")
    return root


def group(folder, limit, used, files=None, v1=False):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit_file, used_file, of_files = names if v1 else ("memory.max", "memory.current", "inactive_file")
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / used_file).write_text(f"{used}\n")
    if files is not None:
        (folder / "memory.stat").write_text(f"anon 5\n{of_files} {files}\nfile 7\n")


def test_of_this_machine_it_is_a_sensible_number():
    assert 2**20 < free_memory("cpu") < 2**50


def test_without_a_container_it_is_what_the_machine_has(tmp_path):
    assert free_memory("cpu", machine(tmp_path)) == 8 * GB // 1000 * 1024
    group(tmp_path / "sys/fs/cgroup", "max", 5 * GB)
    assert free_memory("cpu", tmp_path) == 8 * GB // 1000 * 1024


def test_files_that_were_read_do_not_count(tmp_path):
    group(machine(tmp_path) / "sys/fs/cgroup", 4 * GB, 3 * GB)
    assert free_memory("cpu", tmp_path) == GB
    group(tmp_path / "sys/fs/cgroup", 4 * GB, 3 * GB, files=2 * GB)
    assert free_memory("cpu", tmp_path) == 3 * GB


def test_the_tightest_of_nested_groups_counts(tmp_path):
    top = machine(tmp_path, groups="0::/slice/job/step") / "sys/fs/cgroup"
    group(top / "slice", 5 * GB, GB)
    group(top / "slice/job", 3 * GB, GB)
    group(top / "slice/job/step", "max", GB)
    assert free_memory("cpu", tmp_path) == 2 * GB
    group(top / "other", 1, 1)  # this process is not in it
    assert free_memory("cpu", tmp_path) == 2 * GB


@pytest.mark.parametrize("path", ["/", "/docker/abc"])
def test_version_1(path, tmp_path):
    top = machine(tmp_path, groups=f"12:cpu:/\n4:memory:{path}\n1:name=systemd:/") / "sys/fs/cgroup/memory"
    group(top / path.strip("/"), 4 * GB, 3 * GB, files=GB, v1=True)
    assert free_memory("cpu", tmp_path) == 2 * GB
    group(top / path.strip("/"), 2**63 - 4096, 3 * GB, v1=True)  # how it says that there is no limit
    assert free_memory("cpu", tmp_path) == 8 * GB // 1000 * 1024


def test_more_in_use_than_allowed_is_nothing_left(tmp_path):
    group(machine(tmp_path) / "sys/fs/cgroup", GB, 2 * GB)
    assert free_memory("cpu", tmp_path) == 0


def test_where_nothing_is_told_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert free_memory("cpu", tmp_path) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_kept_for_the_next_use():
    """Blocks above the 32 MiB that glibc would keep by itself: after a while no page is new."""
    code = """
import resource, sys
import torch
from utils.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(20):  # the first ones find no room, as small remainders are kept apart
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""

    def faults(how: str) -> int:
        command = [sys.executable, "-c", code, how]
        return int(subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 100 < faults("as it is")
