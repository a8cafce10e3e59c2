"""Writer for MONAI's ``SaveImaged``: a NIfTI file appears when it is whole, and lies where its image lies."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelWriter

from kvseg_monai.data.nifti_geometry import label_map_header
from kvseg_monai.data.search import LABEL_MAP
from kvseg_monai.utils.files import atomic_write


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer, but a file appears under its name only when it is whole, and lies where its image lies.

    MONAI writes an affine. Programs that go by another part of the header than nibabel does, as ITK, FSL and SPM may,
    would place such a map elsewhere than the image. So where a map is on its image's grid, its qform, sform, codes,
    voxel sizes and units are the image's own. Images from DICOM have scanner coordinates in mm.
    """

    _meta: Mapping[str, Any] = MappingProxyType({})
    data_obj: Any  # MONAI's, the voxels
    stored_dtype: type | None = None  # other than that of the voxels

    def set_metadata(self, meta_dict: Mapping[str, Any] | None, resample: bool = True, **options: Any) -> None:
        """Take the affine, and where the image's header says that it lies."""
        super().set_metadata(meta_dict, resample, **options)
        self._meta = meta_dict or {}

    def write(self, filename: str | os.PathLike[str], verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the whole file; a volume of one slice keeps its third axis."""
        if self.data_obj is not None and self.data_obj.ndim == 2:
            self.data_obj = self.data_obj[..., None]
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        header = label_map_header(self._meta, shape=image.shape[:3], affine=image.affine)
        header.set_data_shape(image.shape)
        header.set_data_dtype(self.stored_dtype or image.get_data_dtype())
        with atomic_write(filename, kind=LABEL_MAP) as temporary:
            # without affine, for nibabel would change the header by it
            nib.save(nib.Nifti1Image(image.dataobj, None, header), temporary)


class ProbabilityWriter(AtomicNibabelWriter):
    """Writer of probabilities, (I, J, K, classes), as int16 with the scale in the header, accurate to 0.00001.

    NIfTI has no float16, and float32 takes twice the room.
    """

    stored_dtype = np.int16
