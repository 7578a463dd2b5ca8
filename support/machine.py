"""The machine: device, threads, precision, memory that is kept, and its description."""
import ctypes
import math
import os
import platform
from pathlib import Path

from support.command_line import choose
from support.errors import UsageError
from support.processes import count, count_here, own_device

import numpy as np
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" is the first there is of CUDA, Apple MPS, CPU. Of several
    processes each has a GPU of its own. Where there is CUDA, it turns TF32 off, for the process.
    Raises UsageError for one that is not on this machine."""
    present = ["cpu"]
    if torch.backends.mps.is_available() and count() == 1:
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
        # float32 is to be float32: torch's default for convolutions is TF32, with three digits of
        # its seven. Networks as small as these are no slower without it (measured on an H100).
        torch.backends.cudnn.allow_tf32 = False
    kind, _, number = name.partition(":")
    if choose(kind, ["auto", "cuda", "mps", "cpu"], "--device") == "auto":
        return own_device(torch.device(present[0]))
    numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if kind not in present or (number and name not in numbered):
        raise UsageError(f"--device {name} is not on this machine; "
                         f"there are {', '.join(present)}")
    return own_device(torch.device(name))


def set_threads() -> None:
    """Use the cores that this process may use, four at the most: these networks are so small that
    more threads spend their time waiting for each other. OMP_NUM_THREADS, if it is set, decides."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    if hasattr(os, "sched_getaffinity"):  # not on every system
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    torch.set_num_threads(min(cores, 4))


def said_by_linux(path: str) -> str:
    """The text of one of the files in which Linux describes itself; nothing on other systems."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def cpu_info() -> str:
    return said_by_linux("/proc/cpuinfo")


def memory_left() -> float:
    """Bytes of memory that a program may still get, as far as the system says: what is free, the
    limit of a control group (both shared by the processes of torchrun), a limit by `ulimit -v` or
    `ulimit -d`. Infinite where it says nothing."""
    found = [math.inf]
    for line in said_by_linux("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]) // count_here())
    for path in control_group_files(said_by_linux("/proc/self/cgroup")):
        limit = said_by_linux(path).strip()  # or "max", or nothing
        if limit.isdecimal():
            found.append(int(limit) // count_here())
    if resource:
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            limit, _ = resource.getrlimit(kind)
            if limit != resource.RLIM_INFINITY:
                found.append(limit)
    return min(found)


def pick_precision(name: str, device: torch.device) -> tuple[str, str]:
    """The type that convolutions and matrix products compute in, float32 or bfloat16, and why. The
    weights, the normalisation and the loss stay in float32 (mixed precision: Micikevicius et al.,
    2018)."""
    choose(name, ("auto", "float32", "bfloat16"), "--precision")
    if name != "auto":
        return name, "as asked"
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        where = "the GPU"
    else:
        flags = cpu_info()
        fast = device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)
        where = "the processor"
    if fast:
        return "bfloat16", f"{where} has it in hardware"
    return "float32", f"{where} has no bfloat16 in hardware"


def keep_freed_memory() -> None:
    """Ask the C library (glibc) to keep freed memory instead of giving it back to the system: each
    step frees and takes the same few hundred megabytes, and page faults took a third of its time.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError, TypeError):
        pass  # not glibc: only slower


def control_group_files(groups: str) -> list[str]:
    """Where a limit of memory may be found for a process that is in these control groups, lines as
    in /proc/self/cgroup: of the group and of those that it is in (cgroups(7); a container sees its
    own group as the topmost)."""
    files = []
    for line in groups.splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0":
            folder, name = "/sys/fs/cgroup", "memory.max"
        elif "memory" in kinds.split(","):
            folder, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        files += ["/".join([folder, *parts[:count], name]) for count in range(len(parts) + 1)]
    return files


def describe_machine(device: torch.device) -> str:
    """The system, and the name of the processor or of the GPU."""
    name = platform.processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    for line in cpu_info().splitlines():
        if line.startswith("model name") and device.type != "cuda":
            name = line.split(": ")[1]
            break
    return f"{platform.system()} {platform.machine()}, {name}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__),
            "numpy": np.__version__}
