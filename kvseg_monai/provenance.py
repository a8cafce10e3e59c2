"""Where a figure comes from: the version of this code and the machine that it ran on."""

import os
import platform
import subprocess
from pathlib import Path

import torch


def commit() -> str | None:
    """Commit of this code, ``-dirty`` with local changes; None where git does not track this very file."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(device: str = "cpu") -> str:
    """Name the processor of a device; for a CPU also its cores, instruction set and the threads that torch uses."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return f"{_processor()} ({capability}), {os.cpu_count()} cores, torch threads: {threads}"


def _processor() -> str:
    """Return the processor's name; platform knows it on Windows and macOS, on Linux only the kernel does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())
