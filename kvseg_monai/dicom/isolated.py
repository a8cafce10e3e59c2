"""Decode in a child process what GDCM decodes: damaged JPEG data can end the process that reads them.

The child, ``python -m kvseg_monai.dicom.isolated``, reads paths, one in a line, and answers each with a line that holds
type and shape, and the values, until its input ends. At the first file that is damaged it ends;
the next file gets a new child. GDCM's JPEG library reports damage on the error stream only, so anything there counts
as damage.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from kvseg_monai.dicom.decode import decode_file
from kvseg_monai.errors import InputError

PIPE = 1 << 20  # bytes: holds a slice whole, where the system grants it, so neither side waits for the other within one
_lock = threading.Lock()  # one file at a time: the pipes know nothing of threads


def decode_isolated(path: Path) -> np.ndarray:
    """Return the stored values (frames, rows, columns) of one file.

    Raises:
        InputError: naming the file, when it is damaged.
    """
    with _lock:
        child = _child(os.getpid())
        requests, answers = cast(BinaryIO, child.stdin), cast(BufferedReader, child.stdout)
        try:
            requests.write(json.dumps(str(path)).encode() + b"\n")
            requests.flush()
            dtype, *shape = json.loads(answers.readline())
            values = np.empty(shape, dtype)
            if answers.readinto(values.data.cast("B")) == values.nbytes:
                return values
        except (OSError, ValueError):  # the child has ended
            pass
        child.kill()
        child.communicate()
        _child.cache_clear()
    raise InputError(f"{path} cannot be decoded (its JPEG data are damaged); copy it again")


@cache
def _child(process: int) -> subprocess.Popen[bytes]:
    """Return the child of this ``process``: one that was forked must not share its parent's."""
    return subprocess.Popen(
        [sys.executable, "-m", "kvseg_monai.dicom.isolated"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pipesize=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def main() -> int:
    """Answer until the input ends; 1 at the first file that is damaged."""
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)
        for line in sys.stdin:
            try:
                array = decode_file(Path(json.loads(line)))
            except InputError:
                return 1
            if os.fstat(complaints.fileno()).st_size:
                return 1
            array = np.ascontiguousarray(array)
            sys.stdout.buffer.write(json.dumps([array.dtype.str, *array.shape]).encode() + b"\n")
            sys.stdout.buffer.write(array.data.cast("B"))
            sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
