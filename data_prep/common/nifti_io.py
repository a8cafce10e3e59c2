"""Volumes as NIfTI files, read with care, written quickly and in one step. Array axes: (column x, row y, slice)."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from kvseg_monai.data.nifti_file import open_nifti
from kvseg_monai.data.nifti_geometry import scanner_header
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write

# On a 16-bit volume level 1 takes a fraction of the time of nibabel's default for a few per cent more bytes.
GZIP_LEVEL = 1


def radiological_affine(spacing: tuple[float, float, float], *, towards_feet: bool) -> np.ndarray:
    """Return the affine of axial slices as radiologists display them, from voxel index to RAS mm.

    Args:
        spacing: mm between columns, rows and slices.
        towards_feet: whether the slice index grows from the head to the feet.

    Returns:
        (4, 4) matrix. Columns run to the patient's left and rows to the back, both against the world axes. The first
        voxel is the origin, because slice images do not say where in the scanner they were taken.
    """
    x, y, z = spacing
    return np.diag([-x, -y, -z if towards_feet else z, 1.0])


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write ``voxels`` to ``path`` (``.nii.gz``) in one step.

    Args:
        path: where to; the folder is made if needed.
        voxels: (x, y, slices), stored in the type it has.
        affine: (4, 4), voxel index to world mm; goes into the qform and the sform.
    """
    header = scanner_header(voxels.shape, affine)
    header.set_data_dtype(voxels.dtype)
    image = nib.Nifti1Image(voxels, None, header)
    with atomic_write(path) as temporary:  # a fixed time stamp makes equal volumes equal files
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=GZIP_LEVEL, mtime=0))


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file as voxels (x, y, slices) of a plain numeric type, scaled as it says, and its affine.

    A single plane gets a third axis, and a fourth axis of length 1 goes.

    Raises:
        InputError: when it cannot be read, is damaged, or is a series of volumes or in colour.
    """
    with open_nifti(path) as image:
        affine, voxels = image.affine, np.asanyarray(image.dataobj)
    voxels = voxels[..., None] if voxels.ndim == 2 else voxels
    voxels = voxels[..., 0] if voxels.ndim == 4 and voxels.shape[3] == 1 else voxels
    if voxels.ndim != 3 or voxels.dtype.kind not in "iuf" or not voxels.size:
        raise InputError(
            f"{path} has the shape {voxels.shape} and the type {voxels.dtype}; it must be one volume of numbers: "
            "split a series into volumes, turn colour into gray"
        )
    return _storable(voxels), affine


def _storable(voxels: np.ndarray) -> np.ndarray:
    """Return the same values in a type that NIfTI readers expect: no 64 bits where 32 hold them, native byte order."""
    if voxels.dtype.kind == "f" or voxels.dtype.itemsize == 8:
        with np.errstate(over="ignore", invalid="ignore"):  # the input checks refuse what becomes infinite
            small = voxels.astype(np.float32 if voxels.dtype.kind == "f" else np.int32)
        return small if voxels.dtype.kind == "f" or (small == voxels).all() else voxels.astype(np.float32)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
