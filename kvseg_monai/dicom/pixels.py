"""Decode the pixels of slices, compressed or not, into values in which bright is large."""

from collections.abc import Sequence

import numpy as np

from kvseg_monai.dicom.decode import ISOLATED, decode_file
from kvseg_monai.dicom.frames import Frame, Header
from kvseg_monai.dicom.isolated import decode_isolated
from kvseg_monai.errors import InputError


def decode_slices(frames: Sequence[Frame]) -> np.ndarray:
    """Return the slices (slice z, row y, column x), rescaled where the headers ask for it.

    Raises:
        InputError: naming the file that cannot be decoded, or is of another size than its header said.
    """
    last, planes = None, []
    for frame in frames:
        if frame.header is not last:
            last = frame.header
            values = decode(last)
            if len(values) != last.frames or values.shape[1:] != last.shape:
                raise InputError(f"{last.path} changed while it was read; run again")
        planes.append(_bright_is_large(values[frame.index], last))
    if all(frame.rescale == (1, 0) for frame in frames):
        return np.stack(planes)
    rescaled = [
        plane.astype(np.float64) * frame.rescale[0] + frame.rescale[1]
        for plane, frame in zip(planes, frames, strict=True)
    ]
    return np.stack(rescaled).astype(np.float32)


def decode(header: Header) -> np.ndarray:
    """Return the stored values (frames, rows, columns) of one file; see :func:`decode_file`."""
    if header.syntax not in ISOLATED:
        return decode_file(header.path)
    return decode_isolated(header.path)


def _bright_is_large(plane: np.ndarray, header: Header) -> np.ndarray:
    """Turn MONOCHROME1 over within its stored bits; anything else stays."""
    if not header.inverted:
        return plane
    if plane.dtype.kind == "f":
        return -plane
    low = -(1 << header.bits - 1) if plane.dtype.kind == "i" else 0
    return (2 * low + (1 << header.bits) - 1 - plane.astype(np.int64)).astype(plane.dtype)
