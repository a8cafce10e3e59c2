"""Turn one scan of the UW-Madison layout into an image volume, a label volume and a record of what was found.

Shapes: a PNG decodes to (height, width) = (row y, column x); volumes are (x, y, slice), slice 0 nearest to the head.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.files import fingerprint, read_json, write_json
from data_prep.nifti_io import radiological_affine, write_volume
from data_prep.rle import decode
from data_prep.uwm_source import SLICE_GAP_MM, Scan
from data_prep.uwm_table import CLASSES
from kvseg_monai.errors import InputError

OVERLAP_RULE = "where organs overlap, stomach wins over small_bowel and small_bowel wins over large_bowel"

# Evidence for the directions, from looking at two scans of two patients (case16_day0, case102_day0): in every slice the
# spine and the table side are at the bottom (rows run to the back), the liver is on the image's left and stomach and
# spleen on its right (columns run to the patient's left). The first slices show lungs and heart, then come the dome of
# the liver, the kidneys, and in the last slices the pelvis: the slice number grows towards the feet.
# In all eleven labelled scans looked at, the stomach also begins and ends at lower numbers than the small bowel.
TOWARDS_FEET = True

_FORMAT = "1"  # raise it when the meaning of the written files changes, so that old results are not taken for new
_PNG_START = b"\x89PNG\r\n\x1a\n"


def read_slice(file: Path, *, width: int, height: int) -> np.ndarray:
    """Read a 16-bit gray PNG as a uint16 array of shape (height, width).

    8-bit files are refused: copies of this data with 8 bits had each slice's contrast stretched on its own, so the
    slices of a volume would no longer share one gray scale.

    Raises:
        InputError: if the file cannot be read, is damaged, not 16-bit gray, or of another size than its name says.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); get the scan again") from error
    if not _is_whole_png(data):
        raise InputError(f"{file} is not a PNG file, damaged or cut off; get the scan again")
    found_width, found_height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if (depth, colour) != (16, 0):
        kind = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}.get(colour, "unknown")
        raise InputError(f"{file} is {depth}-bit {kind}; only 16-bit gray is allowed: use the competition's own files")
    if (found_width, found_height) != (width, height):
        raise InputError(
            f"{file} is {found_width} x {found_height} pixels, its name says {width} x {height} (width x height); "
            "get the scan again"
        )
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image).astype(np.uint16)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InputError(f"{file} cannot be decoded ({error}); get the scan again") from error


def _is_whole_png(data: bytes) -> bool:
    """Walk the chunks to the last one and check their sums: Pillow fills what is missing at the end with zeros."""
    if not data.startswith(_PNG_START + b"\0\0\0\rIHDR"):
        return False
    place = len(_PNG_START)
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        end = place + 12 + size  # length, type, content, check sum
        if end > len(data) or zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place = end
    return False


def merge_organs(masks: dict[str, np.ndarray]) -> tuple[np.ndarray, int]:
    """Merge one mask per organ, all (height, width), into label values; see ``OVERLAP_RULE``.

    The order is fixed, because an order by size would flip between neighbouring slices. It ranks the organs by how
    compact they are: the stomach has one clear outline, small bowel loops have many, and the large bowel is drawn most
    generously and passes in front of both.

    Returns:
        uint8 labels of shape (height, width), and the number of pixels that more than one organ claims.
    """
    claims = np.sum([masks[organ] for organ in CLASSES], axis=0)
    labels = np.zeros(claims.shape, dtype=np.uint8)
    for value, organ in enumerate(CLASSES, start=1):  # CLASSES ascend in rank: the later one overwrites
        labels[masks[organ]] = value
    return labels, int((claims > 1).sum())


def convert_scan(scan: Scan, target: Path) -> dict:
    """Write ``images/``, ``labels/`` and, last, ``records/`` of one scan, and return its record.

    The record is what makes a scan complete: a run that stops before it begins the scan anew.

    Raises:
        InputError: see :func:`read_slice`. Then nothing of this scan is left in ``target``.
    """
    image, label, record = paths(scan.name, target)
    for stale in (record, image, label):
        stale.unlink(missing_ok=True)
    # Slices first in memory, so that each is written in one piece; transposed, this is the order NIfTI stores.
    voxels = np.empty((len(scan.files), scan.height, scan.width), dtype=np.uint16)
    labels = np.empty(voxels.shape, dtype=np.uint8)
    overlaps = []
    for index, (file, number) in enumerate(zip(scan.files, scan.numbers, strict=True)):
        voxels[index] = read_slice(file, width=scan.width, height=scan.height)
        masks = {organ: decode(scan.rows[number][organ], voxels.shape[1:]) for organ in CLASSES}
        labels[index], overlap = merge_organs(masks)
        overlaps.append(overlap)
    affine = radiological_affine((*scan.spacing, SLICE_GAP_MM), towards_feet=TOWARDS_FEET)
    write_volume(image, voxels.T, affine)  # (slice, y, x) -> (x, y, slice)
    write_volume(label, labels.T, affine)
    content = _describe(scan, overlaps)
    write_json(record, content)
    return content


def finished_record(scan: Scan, target: Path) -> dict | None:
    """Record of ``scan`` if an earlier run completed it from the same input, else ``None``."""
    image, label, record = paths(scan.name, target)
    content = read_json(record)
    same = isinstance(content, dict) and content.get("fingerprint") == _fingerprint(scan)
    return content if same and image.is_file() and label.is_file() else None


def paths(name: str, target: Path) -> tuple[Path, Path, Path]:
    """Image, label and record file of the scan ``name``."""
    return (
        target / "images" / f"{name}.nii.gz",
        target / "labels" / f"{name}.nii.gz",
        target / "records" / f"{name}.json",
    )


def _describe(scan: Scan, overlaps: list[int]) -> dict:
    organs = [{organ for organ in CLASSES if scan.rows[number][organ]} for number in scan.numbers]
    return {
        "scan": scan.name,
        "patient": scan.case,
        "slices": len(scan.files),
        "slices_with_organ": sum(bool(found) for found in organs),
        "slices_per_class": {organ: sum(organ in found for found in organs) for organ in CLASSES},
        "overlap_pixels": sum(overlaps),
        "overlap_slices": sum(overlap > 0 for overlap in overlaps),
        "fingerprint": _fingerprint(scan),
    }


def _fingerprint(scan: Scan) -> str:
    return fingerprint(_FORMAT, scan.fingerprint())
