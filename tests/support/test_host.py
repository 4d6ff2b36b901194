"""The host is described correctly, and its limits are respected."""

import json
import math
import os

import torch

from vitreous.support import host


def groups(tmp_path, membership, **files):
    """Writes a cgroup tree and the membership file of a process."""
    for name, text in files.items():
        path = tmp_path / "root" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    return tmp_path / "root", tmp_path / "membership"


def test_version_2_quota_is_the_tightest_up_to_the_root(tmp_path):
    files = {"a__b__cpu_DOT_max": "max 100000\n", "a__cpu_DOT_max": "150000 100000\n"}
    assert host.cgroup_quota(*groups(tmp_path, "0::/a/b\n", **files)) == 1.5


def test_version_1_quota_is_read(tmp_path):
    files = {
        "cpu,cpuacct__x__cpu_DOT_cfs_quota_us": "400000",
        "cpu,cpuacct__x__cpu_DOT_cfs_period_us": "100000",
    }
    assert host.cgroup_quota(*groups(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/y\n", **files)) == 4


def test_a_container_may_see_its_cgroup_as_the_root(tmp_path):
    assert host.cgroup_quota(*groups(tmp_path, "0::/not/seen/here\n", cpu_DOT_max="50000 100000")) == 0.5


def test_without_a_limit_the_quota_is_infinite(tmp_path):
    assert host.cgroup_quota(*groups(tmp_path, "0::/\n", cpu_DOT_max="max 100000")) == math.inf
    assert host.cgroup_quota(tmp_path / "none", tmp_path / "none") == math.inf


def test_cores_are_at_most_the_quota_and_at_least_one(monkeypatch):
    for quota, most in ((0.5, 1), (1.5, 2), (math.inf, 10_000)):
        monkeypatch.setattr(host, "cgroup_quota", lambda quota=quota: quota)
        assert 1 <= host.usable_cores() <= most


def test_tuning_sets_the_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        host.tune_host(threads=2)
        assert torch.get_num_threads() == 2
        host.tune_host()  # OMP_NUM_THREADS is set in tests: respected
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        host.tune_host()
        assert torch.get_num_threads() == host.usable_cores()
    finally:
        torch.set_num_threads(before)


def test_large_freed_tensors_are_kept_once_tuned(fresh_process):
    code = """
import platform, resource, torch
from vitreous.support.host import tune_host
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
untuned = faults()
tune_host()
for _ in range(5):  # until the heap has grown enough
    faults()
print(platform.libc_ver()[0] != "glibc" or faults() * 10 < untuned)
"""
    assert fresh_process(code).stdout.strip() == "True"


def test_the_host_is_described_in_json():
    description = host.describe_host()
    assert json.loads(json.dumps(description)) == description
    assert str(description["torch"]).startswith(torch.__version__.partition("+")[0])
    assert int(description["cores"]) >= 1
    assert int(description["memory_bytes"]) > 2**28
    assert {"python", "platform", "cpu", "device", "torchvision", "numpy", "pillow"} <= set(description)


def test_errors_files_and_text_do_not_import_torch(fresh_process):
    modules = ", ".join(f"vitreous.support.{name}" for name in ("errors", "files", "text", "host"))
    done = fresh_process(f"import sys, {modules}; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_free_memory_is_the_least_of_the_system_and_the_cgroups(tmp_path):
    system = host.free_memory(tmp_path / "none", tmp_path / "none")
    assert system is None or 10**6 < system < 2**50
    files = {"a__memory_DOT_max": "3000000\n", "a__memory_DOT_current": "1000000\n", "memory_DOT_max": "max\n"}
    free = host.free_memory(*groups(tmp_path, "0::/a\n", **files))
    assert free in (None, 2_000_000)
    cached = files | {"a__memory_DOT_stat": "anon 5\ninactive_file 900000\n"}
    (tmp_path / "cached").mkdir()
    assert host.free_memory(*groups(tmp_path / "cached", "0::/a\n", **cached)) in (None, 2_900_000)
    full = {"a__memory_DOT_max": "3000000\n", "a__memory_DOT_current": "4000000\n"}
    (tmp_path / "other").mkdir()
    assert host.free_memory(*groups(tmp_path / "other", "0::/a\n", **full)) in (None, 0)


def test_peak_memory_grows_with_allocation():
    before = host.peak_memory()
    held = bytearray(os.urandom(1 << 16) * 4096)
    assert host.peak_memory() >= before
    assert host.peak_memory() > len(held) or before == 0
