"""Decode the pixels of a DICOM file, compressed or not, into its stored values."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid

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


JPEG_LOSSLESS = uid.UID("1.2.840.10008.1.2.4.57")  # pydicom 2 gives its name to another


# Of the decoders with a permissive licence only GDCM knows these. It can end the process: see
# kvseg_monai.dicom.isolated.
ISOLATED = (uid.JPEGExtended12Bit, JPEG_LOSSLESS, uid.JPEGLosslessSV1)


STREAMS = (*DECODERS, *ISOLATED)  # compressed so that the stream has the number of bits of a value


FRAME_MARKERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # of JPEG-LS and JPEG


def decode_file(path: Path) -> np.ndarray:
    """Return the stored values (frames, rows, columns) of one file.

    Raises:
        InputError: naming the file and the decoder's complaint.
    """
    try:
        with quiet():
            dataset = pydicom.dcmread(path, specific_tags=TAGS, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:  # a file without preamble is not compressed
                dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
            bits, shift = _stored_bits(dataset)
            _choose_decoder(dataset)
            stored = _within(dataset.pixel_array, bits, shift)
    except Exception as error:  # decoders raise whatever damaged data lead them to
        complaint = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be decoded ({complaint or type(error).__name__}); copy it again") from None
    return stored if stored.ndim == 3 else stored[None]


def _stored_bits(dataset: pydicom.Dataset) -> tuple[int, int]:
    """Return how many bits of a value count, and how far above the lowest they begin (above 0 where HighBit says so).

    What a compressed stream of no more bits holds has been shifted already; of one with more, the decoder is set to
    keep all.
    """
    bits, high = (int(dataset.get(keyword) or 0) for keyword in ("BitsStored", "HighBit"))
    shift = high + 1 - bits
    if not (bits and 0 < shift <= int(dataset.BitsAllocated) - bits):
        return bits, 0
    if dataset.file_meta.TransferSyntaxUID in STREAMS:
        if _precision(dataset.PixelData) <= bits:
            return bits, 0
        dataset.BitsStored = high + 1
    return bits, shift


def _precision(data: bytes) -> int:
    """Return the bits of a value in a JPEG, JPEG-LS or JPEG 2000 stream, 0 where the stream does not say."""
    stream = data[16 + int.from_bytes(data[4:8], "little") :]  # behind the table of offsets and the fragment's own mark
    if stream[:4] == b"\xff\x4f\xff\x51":
        return (stream[42] & 0x7F) + 1
    at = 2
    while at + 4 < len(stream) and stream[at] == 0xFF:
        if stream[at + 1] in FRAME_MARKERS:
            return stream[at + 4]
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return 0


def _within(values: np.ndarray, bits: int, shift: int) -> np.ndarray:
    """Return the ``bits`` of each value that count, with their sign; what lies above or below them is no part of it."""
    size = 8 * values.itemsize
    if values.dtype.kind not in "iu" or not 0 < bits < size:
        return values
    top = values.astype(f"u{values.itemsize}") << (size - bits - shift)  # the highest bit that counts is the sign's
    return top.astype(values.dtype.newbyteorder("=")) >> (size - bits)


def _choose_decoder(dataset: pydicom.Dataset) -> None:
    decoder = DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    if hasattr(dataset, "pixel_array_options"):  # whose own correction of unused bits knows no HighBit
        dataset.pixel_array_options(correct_unused_bits=False, **({"decoding_plugin": decoder} if decoder else {}))
    elif decoder:  # pydicom 2, which calls one of them by the name of its module
        dataset.convert_pixel_data({"pyjpegls": "jpeg_ls"}.get(decoder, decoder))
