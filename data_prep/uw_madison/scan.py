"""Turn one scan of the UW-Madison layout into an image volume, a label volume and a record of what was found.

Shapes: a PNG decodes to (height, width) = (row y, column x); volumes are (x, y, slice), slice 0 nearest to the head.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common.png_io import read_png
from data_prep.common.preparation import write_scan
from data_prep.uw_madison.layout import SLICE_GAP_MM, Scan
from data_prep.uw_madison.rle import decode
from data_prep.uw_madison.table import CLASSES
from kvseg_monai.errors import InputError
from kvseg_monai.utils.geometry import radiological_affine

OVERLAP_RULE = "where organs overlap, stomach wins over small_bowel and small_bowel wins over large_bowel"

# Evidence for the directions, from two scans of two patients (case16_day0, case102_day0): in every slice the
# spine and the table side are at the bottom (rows run to the back), the liver is on the image's left and stomach and
# spleen on its right (columns run to the patient's left). The first slices show lungs and heart, then come the dome of
# the liver, the kidneys, and in the last slices the pelvis: the slice number grows towards the feet.
# In all of eleven labelled scans the stomach also begins and ends at lower numbers than the small bowel.
TOWARDS_FEET = True


def read_slice(file: Path, *, width: int, height: int) -> np.ndarray:
    """Read a 16-bit gray PNG as a uint16 array of shape (height, width).

    8-bit files are refused: copies of this data with 8 bits had each slice's contrast stretched on its own, so the
    slices of a volume would no longer share one gray scale.

    Raises:
        InputError: if the file cannot be read, is damaged, not 16-bit gray, or of another size than its name says.
    """
    pixels, kind = read_png(file)
    if kind != "16-bit gray":
        raise InputError(f"{file} is {kind}; only 16-bit gray is allowed: use the competition's own files")
    if pixels.shape != (height, width):
        raise InputError(
            f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels, its name says {width} x {height} "
            "(width x height); get the scan again"
        )
    return pixels


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


def convert_scan(scan: Scan, target: Path) -> dict[str, Any]:
    """Write the volumes and the record of one scan (see :func:`data_prep.common.preparation.write_scan`).

    Raises:
        InputError: see :func:`read_slice`.
    """
    # Slices first in memory, so that each is written in one piece; transposed, this is the order NIfTI stores.
    voxels = np.empty((len(scan.slices), scan.height, scan.width), dtype=np.uint16)
    labels = np.empty(voxels.shape, dtype=np.uint8)
    overlaps = []
    for index, (file, number) in enumerate(zip(scan.slices, scan.numbers, strict=True)):
        voxels[index] = read_slice(file, width=scan.width, height=scan.height)
        masks = {organ: decode(scan.rows[number][organ], voxels.shape[1:]) for organ in CLASSES}
        labels[index], overlap = merge_organs(masks)
        overlaps.append(overlap)
    affine = radiological_affine((*scan.spacing, SLICE_GAP_MM), towards_feet=TOWARDS_FEET)
    facts = _describe(scan, overlaps)
    return write_scan(scan, target, voxels=voxels.T, labels=labels.T, affine=affine, facts=facts)  # (x, y, slice)


def _describe(scan: Scan, overlaps: list[int]) -> dict[str, Any]:
    organs = [{organ for organ in CLASSES if scan.rows[number][organ]} for number in scan.numbers]
    return {
        "slices": len(scan.slices),
        "slices_with_organ": sum(bool(found) for found in organs),
        "slices_per_class": {organ: sum(organ in found for found in organs) for organ in CLASSES},
        "overlap_pixels": sum(overlaps),
        "overlap_slices": sum(overlap > 0 for overlap in overlaps),
    }
