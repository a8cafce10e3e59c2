"""NIfTI files as MONAI's loader takes them; whatever is wrong with a file becomes one sentence."""

from typing import Any

import numpy as np
from monai.data import NibabelReader
from monai.utils import ensure_tuple

from kvseg_monai.data.nifti_file import open_nifti


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
            InputError: when it cannot be read, is damaged, or its voxels are colours or complex numbers.
        """
        with open_nifti(img[0]) as image:
            return super().get_data(image)
