"""Age of a command: seconds since it was started, its imports included."""

import os
import time
from pathlib import Path

RUNNER = b"monai.bundle"  # python -m monai.bundle, which kvseg becomes as well
START = 19  # of the fields behind the name of the program in /proc/self/stat, proc(5): ticks after the system's start


def age_of_command(process: Path = Path("/proc/self")) -> float:
    """Return for how many seconds this process has been, if it was started for one workflow of a bundle; else 0.

    A server, a notebook or a study's arm does other things before a training. Where the system
    does not say so, and only Linux does, it is 0 as well.
    """
    try:
        if RUNNER not in (process / "cmdline").read_bytes().split(b"\0"):
            return 0.0
        fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[START]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
