"""Time preparing against the plain way: ``python -m data_prep.benchmark KIND --source DIR [options of that module]``.

The plain way decodes the same files and writes as many volumes of the same size, gzipped at the same level, and does
nothing else: no search, no headers, no order, no checks. Both run with the same number of processes and take turns.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image

from data_prep.common.parallel import as_done
from data_prep.common.volume_set import run
from kvseg_monai.cost.timing import time_in_turn
from kvseg_monai.data.nifti import write_volume

READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "dicom": lambda file: pydicom.dcmread(file).pixel_array,
    "nifti": lambda file: np.asanyarray(nib.load(file).dataobj),
    "png_pairs": lambda file: np.asarray(Image.open(file)),
}


def copy_plainly(kind: str, target: Path, scan: tuple[int, tuple[tuple[Path, ...], ...]]) -> None:
    """Decode the files of one scan and write its volumes."""
    number, volumes = scan
    for place, files in enumerate(volumes):
        parts = [READERS[kind](file) for file in files]  # each a slice, or a volume of its own
        voxels = np.concatenate([part if part.ndim == 3 else part[None] for part in parts]).T
        write_volume(target / f"{number}_{place}.nii.gz", voxels, np.eye(4))


def time_both(kind: str, arguments: list[str], *, workers: int, rounds: int) -> dict[str, np.ndarray]:
    """Return seconds of each round, ``prepared`` and ``plain``.

    Args:
        kind: name of the module, as ``dicom``.
        arguments: its command line, without ``--target`` and ``--workers``.
        workers: processes.
        rounds: how often each runs.
    """
    module = import_module(f"data_prep.{kind}.source")

    def prepare_once() -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            run(*module.parse([*arguments, "--target", folder, "--workers", str(workers)]))

    with tempfile.TemporaryDirectory() as folder:  # which is not written into
        found, *_ = module.parse([*arguments, "--target", folder])
    scans = list(enumerate(tuple(filter(None, scan.files)) for scan in found.scans))

    def copy_once() -> None:
        with tempfile.TemporaryDirectory() as folder:
            list(as_done(partial(copy_plainly, kind, Path(folder)), scans, workers=workers))

    return time_in_turn({"prepared": prepare_once, "plain": copy_once}, rounds=rounds, title="benchmark")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.benchmark", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("kind", choices=sorted(READERS), help="module of data_prep; its options follow")
    parser.add_argument("--rounds", type=int, default=5, help="how often each runs (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    options, others = parser.parse_known_args(arguments)
    seconds = time_both(options.kind, others, workers=options.workers, rounds=options.rounds)
    ratio = float(np.median(seconds["prepared"] / seconds["plain"]))
    prepared, plain = (float(np.median(seconds[name])) for name in ("prepared", "plain"))
    print(f"prepared {prepared:.2f} s, plain read and write {plain:.2f} s, ratio {ratio:.2f}")
    print(f"medians of {options.rounds} rounds, {options.workers} processes")
    return 0
