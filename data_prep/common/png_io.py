"""PNG files read whole or not at all: Pillow alone would fill what is missing with zeros."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from kvseg_monai.errors import InputError

_START = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def read_png(file: Path) -> tuple[np.ndarray, str]:
    """Return the pixels, (height, width) or (height, width, channels), and their kind, as in ``16-bit gray``.

    Pixels of a palette are its indices.

    Raises:
        InputError: if the file cannot be read, is no PNG, or is damaged.
    """
    if file.exists() and not file.is_file():  # opening a FIFO would wait for ever
        raise InputError(f"{file} is no regular file; get it again")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); get it again") from error
    if not _is_whole(data):
        raise InputError(f"{file} is not a PNG file, damaged or cut off; get it again")
    depth, colour = data[24], data[25]
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
    except Exception as error:  # Pillow raises whatever damaged data lead it to
        raise InputError(f"{file} cannot be decoded ({error}); get it again") from error
    pixels = pixels.astype(np.uint16) if (depth, colour) == (16, 0) else pixels
    return pixels, f"{depth}-bit {_COLOURS.get(colour, 'unknown')}"


def _is_whole(data: bytes) -> bool:
    """Return whether all chunks are there, with the right check sums, and the picture has its length."""
    if not data.startswith(_START + b"\0\0\0\rIHDR"):
        return False
    place = len(_START)
    pixels: list[bytes] = []
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        end = place + 12 + size  # length, type, content, check sum
        if end > len(data) or zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        kind = data[place + 4 : place + 8]
        if kind == b"IEND":
            return _holds_all_rows(data, b"".join(pixels))
        if kind == b"IDAT":
            pixels.append(data[place + 8 : end - 4])
        place = end
    return False


def _holds_all_rows(data: bytes, pixels: bytes) -> bool:
    """Return whether the compressed ``pixels`` are as many as the header says; an interlaced file is believed."""
    width, height, depth, colour, *_, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    size = height * (1 + (width * depth * _CHANNELS.get(colour, 1) + 7) // 8)  # a filter byte begins each row
    try:
        return bool(interlaced) or len(zlib.decompressobj().decompress(pixels, size + 1)) == size
    except zlib.error:
        return False
