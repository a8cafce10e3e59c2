"""Reader of the bundles: NIfTI files, and DICOM series in the order of their geometry."""

import warnings
from collections.abc import Sequence
from os import PathLike

import numpy as np
from monai.utils import MetaKeys, SpaceKeys

from kvseg_monai.data.nifti_names import VOLUME_SUFFIXES
from kvseg_monai.data.nifti_reader import NiftiReader
from kvseg_monai.dicom.listing import volume_at

# LoadImage makes all of MONAI's readers, and this one complains where its decoder for GPUs is missing. It is not used.
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")


class VolumeReader(NiftiReader):
    """Reader for ``LoadImaged``: a NIfTI file, a folder with one DICOM MR series, a DICOM file, or a path of
    :func:`kvseg_monai.dicom.listing.list_volumes`.

    MONAI's own readers take DICOM slices in the order of their instance numbers, which need not be that of their
    places.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: whatever cannot be read is an error, not tried by another reader."""
        return True

    def get_data(self, img: tuple[PathLike, ...]) -> tuple[np.ndarray, dict]:
        """Return voxels (X, Y, Z), or what axes a NIfTI file has, and MONAI's metadata with a RAS affine.

        Raises:
            InputError: when the file or series cannot be read.
        """
        if str(img[0]).endswith(VOLUME_SUFFIXES):
            return super().get_data(img)
        voxels, affine = volume_at(img[0]).load()
        return voxels, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(voxels.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
