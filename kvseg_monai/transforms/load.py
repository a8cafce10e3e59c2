"""The transform that loads a volume."""

import warnings
from typing import Any

from monai.config import KeysCollection
from monai.transforms import LoadImaged

from kvseg_monai.data.readers import VolumeReader


class LoadVolumed(LoadImaged):
    """MONAI's ``LoadImaged`` with :class:`kvseg_monai.data.VolumeReader`: NIfTI files and DICOM series.

    MONAI makes all of its readers each time, and one of them warns where its decoder for GPUs is missing. It is not
    used here, and so its warning is not shown.

    Args:
        keys: of the files.
        image_only: return the volume alone, which has its metadata with it.
        options: any other of ``LoadImaged``.
    """

    def __init__(self, keys: KeysCollection, *, image_only: bool = True, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            super().__init__(keys, reader=VolumeReader, image_only=image_only, **options)
