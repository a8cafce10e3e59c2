"""Readers for MONAI's ``LoadImaged``: NIfTI files, and DICOM series in the order of their geometry."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import NibabelReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from kvseg_monai.data.nifti import VOLUME_SUFFIXES, open_nifti
from kvseg_monai.dicom.listing import volume_at


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

    def get_data(self, img: tuple[str | PathLike[str], ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the voxels (X, Y, Z) of the one file, and its header.

        Raises:
            InputError: when it cannot be read, is damaged, or its voxels are colours or complex numbers.
        """
        with open_nifti(img[0]) as image:
            return super().get_data(image)


class VolumeReader(NiftiReader):
    """Reader for ``LoadImaged``: a NIfTI file, a folder with one DICOM MR series, a DICOM file, or a path of
    :func:`kvseg_monai.dicom.listing.list_volumes`.

    MONAI's own readers take DICOM slices in the order of their instance numbers, which need not be that of their
    places.
    """

    def verify_suffix(self, filename: Sequence[PathLike[str]] | PathLike[str]) -> bool:
        """Return True: whatever cannot be read shall be reported, not tried by another reader."""
        return True

    def get_data(self, img: tuple[str | PathLike[str], ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return voxels (X, Y, Z), or what axes a NIfTI file has, and MONAI's metadata with a RAS affine.

        Raises:
            InputError: when the file or series cannot be read.
        """
        if str(img[0]).endswith(VOLUME_SUFFIXES):
            return super().get_data(img)
        voxels, affine = volume_at(Path(img[0])).load()
        return voxels, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(voxels.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
