"""Provenance of a figure: the version of this code and the machine that it ran on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kvseg_monai._version import __version__
from kvseg_monai.utils.cpu import linear_library, processor_fact


def commit() -> str | None:
    """Return the commit of this code, ``-dirty`` with local changes; None where git does not track this very file."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of this code and of what it computes with, by name."""
    rows = {
        "kvseg_monai": __version__,
        "Commit": commit() or "not in a git repository",
        "Python": platform.python_version(),
    }
    return rows | {name: _version(name) for name in ("torch", "monai", "numpy", "nibabel")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def machine(device: str = "cpu") -> str:
    """Name the processor of a device; for a CPU also its cores, instruction set and the threads that torch uses."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    # On Linux the kernel alone knows the name, elsewhere the platform.
    processor = processor_fact("model name") or platform.processor() or platform.machine()
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return (
        f"{processor} ({capability}), {os.cpu_count()} cores, torch threads: {threads}, linear layers: "
        f"{linear_library()}"
    )
