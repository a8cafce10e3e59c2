"""The plain command lines that ``kvseg`` stands for: shown, to be copied, and run."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def show(module: str, words: Sequence[str]) -> str:
    """Return ``python -m MODULE WORDS``, quoted for a shell; Python in full where another one is called ``python``."""
    found = shutil.which("python")
    same = found is not None and Path(found).parent.resolve() == Path(sys.executable).parent.resolve()
    return shlex.join(["python" if same else short(Path(sys.executable)), "-m", module, *words])


def short(path: Path) -> str:
    """Return a path as it is named from the working directory, where it lies below it."""
    here = Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def become(module: str, words: Sequence[str]) -> None:
    """Replace this process by ``python -m MODULE WORDS``, so that exit code, Ctrl-C and output are the plain line's."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])


def run_and_wait(module: str, words: Sequence[str]) -> int:
    """Run ``python -m MODULE WORDS`` and return its exit code; whatever ends this process, that one ends first."""
    with subprocess.Popen([sys.executable, "-m", module, *words]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal sent it to both
            process.wait()
            raise
        except BaseException:
            process.terminate()
            process.wait()
            raise
