"""What the header of a NIfTI file alone tells, before memory is asked for its voxels; no torch needed."""

import math
import os

import nibabel as nib

MAX_GZIP_RATIO = 1032  # of deflate; https://zlib.net/zlib_tech.html


def header_finding(image: nib.spatialimages.SpatialImage, path: str) -> str | None:
    """Return why the file at ``path`` holds no voxels that can be used, as the rest of a sentence; else None."""
    kind = image.get_data_dtype()
    if kind.fields:
        return (
            f"is a colour image ({', '.join(kind.fields)}); the networks read one contrast: give the MR volume itself"
        )
    if kind.kind not in "buif":
        return f"holds voxels of the type {kind.name}; they must be real numbers: give the magnitude"
    most = os.path.getsize(path) * (MAX_GZIP_RATIO if path.endswith(".gz") else 1)
    if isinstance(image, nib.Nifti1Image) and math.prod(image.shape) * kind.itemsize > most:
        shape = " x ".join(str(side) for side in image.shape)
        return f"is {shape} voxels by its header, more than the file can hold; copy it again"
    return None
