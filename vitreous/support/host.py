"""The host machine: its cores, memory and device, and tuning of threads and the allocator.

Commands, `train` and the predictor call it, never an import: a library does not change its host unasked.
"""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn")
CGROUPS = Path("/sys/fs/cgroup")

# glibc's names for mallopt, from malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BELOW = 1 << 30  # bytes; larger blocks go back to the kernel when freed
NEVER = -1


def tune_host(threads: int | None = None) -> None:
    """Sets torch's threads to the cores of this process, and makes the allocator keep freed memory.

    A container sees all cores of its host, and a thread for each would slow all of them down. OMP_NUM_THREADS, which
    torchrun sets for its processes, takes precedence.

    By default glibc returns every freed block above a threshold (at most 32 MiB) to the kernel, so each step of a model
    pays again for the kernel to clear the same pages, 4 KiB at a time. With the thresholds raised, blocks up to 1 GiB
    are reused: the same tensor work ran 7 times faster at 200 MB per tensor. The process then keeps its peak memory.

    Args:
        threads: per operation; by default the usable cores.
    """
    import torch

    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or usable_cores())
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEEP_BELOW)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def best_device() -> str:
    """The fastest available device: "cuda", Apple's "mps", or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_cores() -> int:
    """Physical cores this process may use, by its CPU affinity and cgroup quota."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    # Two hardware threads of one core share its arithmetic units, and matrix products fill those with one.
    cores = {_read(Path(topology.format(cpu))) or str(cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), cgroup_quota())))


def peak_memory() -> int:
    """Peak main memory of this process, in bytes; 0 if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Main memory this process can still use, by the system and its cgroups, in bytes; None if unknown.

    The cached files of a cgroup count as free, since they are dropped when memory is needed.
    """
    words = _read(Path("/proc/meminfo")).partition("MemAvailable:")[2].split()
    if not words:
        return None
    free = int(words[0]) * 1024
    for group in cgroup_folders(root, membership, "memory"):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, used = _read(group / limit), _read(group / usage)
            if most.isdecimal() and used.isdecimal():
                free = min(free, int(most) - int(used) + _cached_files(group))
    return max(0, free)


def cgroup_quota(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs the cgroups (version 1 or 2) of this process allow; infinity without a limit."""
    return min((_quota_of(folder) for folder in cgroup_folders(root, membership, "cpu")), default=math.inf)


def cgroup_folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroups (version 1 or 2), from its own up to the root.

    The tightest of their limits applies; a container may see its own cgroup as the root.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / path.lstrip("/")
        yield from (folder for folder in {group, *group.parents, base} if folder == base or base in folder.parents)


def describe_host() -> dict[str, str | int]:
    """What results depend on besides the code, for `environment.json` and `vitreous --version -v`."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "device": _device(),
        **{name: _version(name) for name in PACKAGES},
    }


def _cached_files(group: Path) -> int:
    """Bytes of cached files that a cgroup can drop."""
    statistics = dict(line.split(maxsplit=1) for line in _read(group / "memory.stat").splitlines() if " " in line)
    return int(statistics.get("total_inactive_file") or statistics.get("inactive_file") or 0)


def _quota_of(group: Path) -> float:
    """CPUs one cgroup allows; infinity without a limit."""
    words = _read(group / "cpu.max").split()  # version 2: "200000 100000" or "max 100000"
    if not words:  # version 1: two files, and -1 for no limit
        words = [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, words)
    except ValueError:
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _cpu_model() -> str:
    """The name of the processor."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    """Main memory in bytes; 0 if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0


def _device() -> str:
    """The device that commands use by default, with its model and count if it is CUDA."""
    import torch

    device = best_device()
    return f"cuda: {torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if device == "cuda" else device


def _version(package: str) -> str:
    """The installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _read(path: Path) -> str:
    """The text of a small system file; empty if it does not exist."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
