"""Decode the pixels of slices, compressed or not, into values in which bright is large."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid

from kvseg_monai.dicom.frames import Frame, Header
from kvseg_monai.dicom.headers import quiet
from kvseg_monai.errors import InputError

TAGS = [
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
]
# Chosen because they refuse damaged data; pydicom's own order would take GDCM first, which may decode or die on it.
DECODERS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
}
# Of the decoders with a permissive licence only GDCM knows these. It can end the process: see kvseg_monai.dicom.apart.
APART = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)


def decode_slices(frames: Sequence[Frame]) -> np.ndarray:
    """Return the slices (slice z, row y, column x), rescaled where the headers ask for it.

    Raises:
        InputError: naming the file that cannot be decoded, or is of another size than its header said.
    """
    last, planes = None, []
    for frame in frames:
        if frame.header is not last:
            last = frame.header
            values = _decode(last)
            if len(values) != last.frames or values.shape[1:] != last.shape:
                raise InputError(f"{last.path} changed while it was read; run again")
        planes.append(_bright_is_large(values[frame.index], last))
    if all(frame.rescale == (1, 0) for frame in frames):
        return np.stack(planes)
    pairs = zip(planes, frames, strict=True)
    return np.stack([plane * np.float32(f.rescale[0]) + np.float32(f.rescale[1]) for plane, f in pairs])


def _decode(header: Header) -> np.ndarray:
    if header.syntax not in APART:
        return decode_file(header.path)
    from kvseg_monai.dicom.apart import decode_apart  # which decodes by this module

    return decode_apart(header.path)


def decode_file(path: Path) -> np.ndarray:
    """Stored values (frames, rows, columns) of one file.

    Raises:
        InputError: naming the file and the decoder's complaint.
    """
    try:
        with quiet():
            dataset = pydicom.dcmread(path, specific_tags=TAGS, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:  # a file without preamble is not compressed
                dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
            _choose_decoder(dataset)
            stored = dataset.pixel_array
    except Exception as error:  # decoders raise whatever damaged data lead them to
        complaint = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be decoded ({complaint or type(error).__name__}); copy it again") from None
    return stored if stored.ndim == 3 else stored[None]


def _choose_decoder(dataset: pydicom.Dataset) -> None:
    decoder = DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    if decoder and hasattr(dataset, "pixel_array_options"):
        dataset.pixel_array_options(decoding_plugin=decoder)
    elif decoder:  # pydicom 2, which calls one of them by the name of its module
        dataset.convert_pixel_data({"pyjpegls": "jpeg_ls"}.get(decoder, decoder))


def _bright_is_large(plane: np.ndarray, header: Header) -> np.ndarray:
    """Turn MONOCHROME1 over within its stored bits; anything else stays."""
    if not header.inverted:
        return plane
    low = -(1 << header.bits - 1) if plane.dtype.kind == "i" else 0
    return (2 * low + (1 << header.bits) - 1 - plane.astype(np.int64)).astype(plane.dtype)
