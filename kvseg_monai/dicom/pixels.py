"""Decode the pixels of slices, compressed or not, into values in which bright is large."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from kvseg_monai.dicom.headers import Frame, quiet
from kvseg_monai.errors import InputError


def decode_slices(frames: Sequence[Frame]) -> np.ndarray:
    """Return the slices (slice z, row y, column x), rescaled where the headers ask for it.

    Raises:
        InputError: naming the file that cannot be decoded, or is of another size than its header said.
    """
    planes, last, stored = [], None, np.empty(0)
    for frame in frames:
        if frame.header.path != last:
            last, stored = frame.header.path, decode_file(frame.header.path, frame.header.inverted)
        if frame.index >= len(stored) or stored.shape[1:] != frame.header.shape:
            raise InputError(f"{last} changed while it was read; run again")
        planes.append(stored[frame.index])
    if all(frame.rescale == (1, 0) for frame in frames):
        return np.stack(planes)
    pairs = zip(planes, frames, strict=True)
    return np.stack([plane * np.float32(f.rescale[0]) + np.float32(f.rescale[1]) for plane, f in pairs])


def decode_file(path: Path, inverted: bool) -> np.ndarray:
    """Stored values (frames, rows, columns) of one file; ``inverted`` turns them over within their bits."""
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble this is the usual form
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            stored = dataset.pixel_array
    except Exception as error:  # decoders raise whatever damaged data lead them to
        raise InputError(f"{path} cannot be decoded ({type(error).__name__}: {error}); copy the file again") from None
    stored = stored if stored.ndim == 3 else stored[None]
    if inverted:
        low = -(1 << dataset.BitsStored - 1) if dataset.PixelRepresentation else 0
        stored = (2 * low + (1 << dataset.BitsStored) - 1 - stored.astype(np.int64)).astype(stored.dtype)
    return stored
