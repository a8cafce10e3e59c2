"""How the bundles read a volume: NIfTI files by MONAI's reader, DICOM series in the order of their geometry."""

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import NibabelReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from kvseg_monai.dicom.listing import volume_at
from kvseg_monai.errors import InputError

VOLUME_SUFFIXES = (".nii", ".nii.gz")

# LoadImage makes all of MONAI's readers, and this one complains where its decoder for GPUs is missing. It is not used.
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")


class VolumeReader(NibabelReader):
    """Reader for ``LoadImaged``: a NIfTI file, a folder with one DICOM MR series, a DICOM file, or a path of
    :func:`kvseg_monai.dicom.listing.list_volumes`.

    MONAI's own readers take DICOM slices in the order of their instance numbers, which need not be that of their
    places. ``LoadImage`` goes on to those readers where ``read`` of this one fails. So ``read`` does nothing, and
    ``get_data``, whose errors are not caught, reads.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: whatever cannot be read shall be told, not tried by another reader."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[PathLike, ...]:
        """Return the paths alone; see the class."""
        return ensure_tuple(data)

    def get_data(self, img: tuple[PathLike, ...]) -> tuple[np.ndarray, dict]:
        """Return voxels (X, Y, Z), or what axes a NIfTI file has, and MONAI's metadata with a RAS affine.

        Raises:
            InputError: when the file or series cannot be read.
        """
        if str(img[0]).endswith(VOLUME_SUFFIXES):
            return self._read_nifti(img)
        voxels, affine = volume_at(img[0]).load()
        return voxels, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(voxels.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }

    def _read_nifti(self, paths: tuple[PathLike, ...]) -> tuple[np.ndarray, dict]:
        path = Path(paths[0])
        if not path.is_file():
            raise InputError(f"{path} is missing; restore it or correct the path")
        try:
            return super().get_data(super().read(paths))
        except Exception as error:  # nibabel raises whatever damaged data lead it to
            complaint = " ".join(str(error).split())[:200]
            raise InputError(f"{path} is no readable NIfTI file ({complaint}); copy it again") from error
