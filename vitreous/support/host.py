"""The machine: its cores and allocator used well, and what it is.

Called by commands, `train` and the predictor, never at import: a library does not change its host unasked.
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
KEEP_BELOW = 1 << 30  # bytes; a larger block is given back when freed
NEVER = -1


def tune_host(threads: int | None = None) -> None:
    """Sets torch's threads to the cores this process has, and lets the allocator keep freed activations.

    A container sees all cores of its host; one thread for each would have them wait for each other.
    OMP_NUM_THREADS, which torchrun sets for each of its processes, is respected.

    glibc takes every block above its threshold (32 MiB at most, by itself) from the kernel and gives it back
    when it is freed, so that each step of a model pays for the same pages again: the kernel clears them, 4
    KiB at a time. With the thresholds raised, blocks up to 1 GiB are reused: the same tensor work ran 7 times
    faster at 200 MB a tensor. The process then keeps the most memory it ever had.

    Args:
        threads: threads for one operation; by default the cores.
    """
    import torch

    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or usable_cores())
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEEP_BELOW)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def best_device() -> str:
    """The fastest device there is: "cuda", Apple's "mps", or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_cores() -> int:
    """Physical cores this process may use: those of its CPU affinity, and no more than its cgroup's quota."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    # Two hardware threads of one core share its arithmetic units, and matrix products fill those with one.
    cores = {_read(Path(topology.format(cpu))) or str(cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), cgroup_quota())))


def peak_memory() -> int:
    """The most bytes of main memory that this process ever had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes of main memory that this process could still take, by the system and its cgroups; None if not told.

    Files that a group keeps in memory, as it read them, make room when it is needed, and count as free.
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
    """CPUs that the cgroups of this process (version 1 or 2) allow it, infinity where they set no limit."""
    return min((_quota_of(folder) for folder in cgroup_folders(root, membership, "cpu")), default=math.inf)


def cgroup_folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The folders of the cgroups (version 1 or 2) of this process, from its own up to the root.

    The tightest limit of them holds; in a container its own may be seen as the root.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / path.lstrip("/")
        yield from (folder for folder in {group, *group.parents, base} if folder == base or base in folder.parents)


def describe_host() -> dict[str, str | int]:
    """What a result depends on besides the code: for `environment.json` and `vitreous --version -v`."""
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
    """Bytes of files that a cgroup keeps in memory and can drop."""
    statistics = dict(line.split(maxsplit=1) for line in _read(group / "memory.stat").splitlines() if " " in line)
    return int(statistics.get("total_inactive_file") or statistics.get("inactive_file") or 0)


def _quota_of(group: Path) -> float:
    """CPUs that one cgroup folder allows."""
    words = _read(group / "cpu.max").split()  # version 2: "200000 100000" or "max 100000"
    if not words:  # version 1: two files, and -1 for no limit
        words = [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, words)
    except ValueError:
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _cpu_model() -> str:
    """The processor's name."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    """Bytes of main memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0


def _device() -> str:
    """The accelerator that commands choose by themselves."""
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
    """The text of a small system file, empty where there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
