"""Decode in a process of its own what is decoded by GDCM: damaged JPEG data can end the process that reads them.

The child, ``python -m kvseg_monai.dicom.apart``, gets the paths as JSON and returns one array for each, up to the first
that is damaged. GDCM's JPEG library tells of damage on the error stream only, so a word there counts as damage.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvseg_monai.dicom.pixels import decode_file
from kvseg_monai.errors import InputError


def decode_apart(paths: Sequence[Path]) -> list[np.ndarray]:
    """Stored values (frames, rows, columns) of each file.

    Raises:
        InputError: naming the first file that is damaged.
    """
    child = subprocess.run(
        [sys.executable, "-m", "kvseg_monai.dicom.apart"],
        input=json.dumps([str(path) for path in paths]).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    stream, arrays = io.BytesIO(child.stdout), []
    with contextlib.suppress(ValueError, EOFError):  # the end, or an array that the child could not finish
        while len(arrays) < len(paths):
            arrays.append(np.load(stream, allow_pickle=False))
    if len(arrays) < len(paths):
        raise InputError(f"{paths[len(arrays)]} cannot be decoded (its JPEG data are damaged); copy it again")
    return arrays


def main() -> int:
    """Decode the files named on the input stream; 1 at the first that is damaged."""
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)
        for path in json.load(sys.stdin):
            try:
                array = decode_file(Path(path))
            except InputError:
                return 1
            if os.fstat(complaints.fileno()).st_size:
                return 1
            whole = io.BytesIO()
            np.save(whole, array)
            sys.stdout.buffer.write(whole.getbuffer())
    return 0


if __name__ == "__main__":
    sys.exit(main())
