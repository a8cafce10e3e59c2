"""NIfTI files as MONAI's loader takes them; whatever is wrong with a file becomes one sentence."""

import math
import os
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelReader
from monai.utils import ensure_tuple

from kvseg_monai.errors import InputError

MAX_GZIP_RATIO = 1032  # of deflate; https://zlib.net/zlib_tech.html


class NiftiReader(NibabelReader):
    """MONAI's reader of NIfTI files, made strict. Dimensions of size 1 behind the third are dropped.

    ``LoadImage`` tries its other readers on a file, such as the one for photographs, where ``read`` fails. So ``read``
    does nothing, and ``get_data``, whose errors are not caught, reads. MONAI's reader replaces an sform by the qform
    where only that fits the voxel size; here the affine stays the file's own, as other programs see it, and so does the
    label map's.
    """

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def read(self, data: Any, **kwargs: Any) -> tuple[str, ...]:
        """Return the file names."""
        self.filenames = ensure_tuple(data)
        return self.filenames

    def get_data(self, img: tuple[str, ...]) -> tuple[np.ndarray, dict]:
        """Return the voxels (X, Y, Z) of the one file, and its header.

        Raises:
            InputError: when it cannot be read, or its voxels are colours or complex numbers.
        """
        path = str(img[0])
        if not os.path.isfile(path):
            raise InputError(f"{path} is missing; restore it or correct the path")
        try:
            image = nib.load(path)
            finding = _finding(image, path)
            loaded = super().get_data(image) if finding is None else None
        except Exception as error:  # nibabel and gzip have a dozen kinds for a damaged file
            reason = " ".join(str(error).replace(path, "it").split()) or type(error).__name__
            raise InputError(f"{path} is no readable NIfTI file ({reason}); copy it again") from error
        if loaded is None:
            raise InputError(f"{path} {finding}")
        return loaded


def _finding(image: nib.spatialimages.SpatialImage, path: str) -> str | None:
    """Return what the header alone tells, before memory is asked for."""
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
