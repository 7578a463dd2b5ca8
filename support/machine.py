"""The machine: device, threads, precision, memory that is kept, and its description."""
import ctypes
import os
import platform
from pathlib import Path

import torch

from support.command_line import choose
from support.errors import UsageError


def pick_device(name: str) -> torch.device:
    """"auto": CUDA, Apple MPS, CPU, whichever is there first. Raises UsageError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
               "cpu": True}
    kind, colon, number = name.partition(":")
    if choose(kind, ["auto", *present], "--device") == "auto":
        return torch.device(next(kind for kind in present if present[kind]))
    if not present[kind] or (colon and (kind != "cuda" or not number.isdecimal()
                                        or int(number) >= torch.cuda.device_count())):
        raise UsageError(f"--device {name} is not on this machine; "
                         f"there are {', '.join(kind for kind in present if present[kind])}")
    return torch.device(name)


def set_threads() -> None:
    """Use the cores that this process may use, four at the most: these networks are so small that
    more threads spend their time waiting for each other. OMP_NUM_THREADS, if it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        allowed = getattr(os, "sched_getaffinity", None)  # not on every system
        torch.set_num_threads(min(len(allowed(0)) if allowed else os.cpu_count() or 1, 4))


def pick_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The type that convolutions and matrix products compute in, and why. The weights, the
    normalisation and the loss stay in float32 (mixed precision: Micikevicius et al., 2018)."""
    if choose(name, ("auto", "float32", "bfloat16"), "--precision") != "auto":
        return getattr(torch, name), "as asked"
    if device.type == "cuda":
        fast, why = torch.cuda.get_device_capability(device) >= (8, 0), "the GPU"
    else:
        try:
            flags = Path("/proc/cpuinfo").read_text()
        except OSError:  # not Linux
            flags = ""
        fast = device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)
        why = "the processor"
    return (torch.bfloat16, f"{why} has it in hardware") if fast else (
        torch.float32, f"{why} has no bfloat16 in hardware")


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


def describe_machine(device: torch.device) -> str:
    """The system, and the name of the processor or of the GPU."""
    name = platform.processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    return f"{platform.system()} {platform.machine()}, {name}, {os.cpu_count()} cores"
