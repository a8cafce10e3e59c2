"""Speed of a process on a CPU: which library multiplies matrices, and how memory is given back.

Nothing here happens at import. The bundles' ``initialize``, ``kvseg`` and the MONAI Label app call :func:`tune_cpu`.
"""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from kvseg_monai.errors import InputError

# malloc.h of the GNU C library
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

LINEAR_LIBRARIES = ("auto", "mkl", "onednn")
_chosen = {"linear": "auto"}


def tune_cpu(*, linear: str = "auto") -> None:
    """Prepare this process for computing on a CPU.

    Args:
        linear: the library for linear layers in float32: ``mkl``, ``onednn``, or ``auto`` for :func:`linear_library`'s
            rule.

    Raises:
        InputError: ``linear`` is none of these.
    """
    if linear not in LINEAR_LIBRARIES:
        raise InputError(f"--linear is {linear!r}; it must be one of {', '.join(LINEAR_LIBRARIES)}")
    _chosen["linear"] = linear
    keep_freed_memory()


def linear_library() -> str:
    """Return the library that multiplies the matrices of linear layers in float32, ``mkl`` or ``onednn``.

    Unless :func:`tune_cpu` was given one: on AMD's processors with AVX-512 oneDNN, since MKL leaves half of their rate
    unused; elsewhere MKL, torch's own choice. The rule looks at the vendor and the instruction set alone, so that the
    same machine gives the same result each time.
    """
    return _library_by_rule() if _chosen["linear"] == "auto" else _chosen["linear"]


@contextmanager
def plain_linear() -> Iterator[None]:
    """Let linear layers be torch's own within the block, as to count what they compute."""
    chosen, _chosen["linear"] = _chosen["linear"], "mkl"
    try:
        yield
    finally:
        _chosen["linear"] = chosen


@cache
def _library_by_rule() -> str:
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "onednn" if wide and torch.backends.mkldnn.is_available() and vendor() == "AuthenticAMD" else "mkl"


@cache
def vendor() -> str:
    """Return the maker of the processor as it spells itself, ``GenuineIntel`` or ``AuthenticAMD``."""
    return processor_fact("vendor_id") or platform.processor().rpartition(", ")[2]  # Windows ends its description so


@cache
def processor_fact(name: str) -> str:
    """Return what Linux says of the first processor under a name, such as ``model name``; "" where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    facts = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in facts if key.strip() == name), "")


@cache
def has_bf16() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 itself."""
    supported = (getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported)


@cache
def keep_freed_memory() -> None:
    """Let the GNU C library keep the memory of large tensors for the next ones, instead of handing it back each time.

    Otherwise each activation above 32 MB is mapped anew, and the kernel clears its pages again: 20 to 40 % of the time
    of a small network. The process then keeps the most memory that it ever needed, which is what it needed anyway.
    Other C libraries are left alone.
    """
    if _has_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def hand_back_freed_memory() -> None:
    """Let the GNU C library hand back what it keeps, this once, as where memory is short; others are left alone."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
