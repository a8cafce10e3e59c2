"""The geometry of a NIfTI header: qform, sform and voxel size; no torch needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from kvseg_monai.utils.geometry import corner_distance, spacing_of

# Programs differ in which of these they go by, so the label map of an image has all of them as its image.
GEOMETRY = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units"),
)
SAME_POSITION = 0.05  # of a voxel's shortest side


def label_map_header(fields: Mapping[str, Any], *, shape: Sequence[int], affine: np.ndarray) -> nib.Nifti1Header:
    """Return a header for the label map of an image, with the geometry of the image's header.

    Nothing else of the image's header is taken: it may identify the patient, or is of the intensities.

    Args:
        fields: of the image's header, if it was a NIfTI file, among other facts; ``original_pixdim`` is its pixdim.
        shape: of the map.
        affine: (4, 4), voxel index to RAS mm. Where the fields have another, it is written in scanner coordinates.
    """
    header = nib.Nifti1Header()
    fields = {**fields, "pixdim": fields.get("original_pixdim", fields.get("pixdim"))}
    if all(fields.get(name) is not None for name in GEOMETRY):
        for name in GEOMETRY:
            header[name] = np.asarray(fields[name])
        header["pixdim"][4:] = 1  # of axes that a map has not
        header.set_data_shape(shape)
        distance = corner_distance(shape, header.get_best_affine(), affine)
        if distance <= SAME_POSITION * min(spacing_of(affine)):
            return header
    return scanner_header(shape, affine)


def scanner_header(shape: Sequence[int], affine: np.ndarray) -> nib.Nifti1Header:
    """Return a header whose qform and sform are the affine (4, 4), voxel index to scanner RAS mm.

    A qform cannot express shear. Where that would move a voxel, it is left out: ITK, which goes by the qform
    then, refuses the file instead of showing it in the wrong position.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    if corner_distance(shape, header.get_qform(), affine) > SAME_POSITION * min(spacing_of(affine)):
        header.set_qform(affine, code="unknown")
    header.set_xyzt_units("mm")
    return header
