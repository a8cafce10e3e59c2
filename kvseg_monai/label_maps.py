"""Where the bundles' label maps go: folders and names as of their images, whole files, none made twice unasked."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel as nib
from monai.data import NibabelWriter

from kvseg_monai.data import Case
from kvseg_monai.errors import InputError
from kvseg_monai.files import whole_file
from kvseg_monai.nifti_place import place_of_map
from kvseg_monai.overrides import as_flag

logger = logging.getLogger(__name__)


def common_root(data: Sequence[Case]) -> str:
    """Return the deepest folder that holds all images, so that label maps keep the folders below it; "" for none."""
    return os.path.commonpath([str(Path(case["image"]).parent) for case in data]) if data else ""


def still_to_do(
    data: Sequence[Case], output_dir: str | Path, *, overwrite: bool | str = False, suffix: str = ".nii.gz"
) -> list[Case]:
    """Leave out the volumes whose label map is in ``output_dir`` already, and say so.

    Raises:
        InputError: when a label map would take the place of its input, or when nothing is left to do.
    """
    root = Path(common_root(data))
    again, todo = as_flag(overwrite, "overwrite"), []
    for case in data:
        target = Path(output_dir).resolve() / label_map_name(Path(case["image"]).relative_to(root), suffix)
        if target.parent == Path(case["image"]).parent:
            raise InputError(
                f"--output_dir {output_dir} is the folder of the input {case['image']}; a label map takes its input's "
                "name, so it must go elsewhere: choose another --output_dir"
            )
        if again or not target.exists():
            todo.append(case)
    if len(todo) < len(data):
        logger.info(
            "%d of %d volumes have a label map in %s already and are skipped; --overwrite true makes them again",
            len(data) - len(todo),
            len(data),
            output_dir,
        )
    if not todo:
        raise InputError(
            f"all {len(data)} volumes have a label map in {output_dir} already; give --overwrite true to make them "
            "again, or another --output_dir"
        )
    return todo


def label_map_name(image: Path, suffix: str = ".nii.gz") -> Path:
    """Return the relative path of an image's label map: the same, with another suffix."""
    return image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + suffix)


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer, but a file appears under its name only when it is whole, and lies where its image lies.

    MONAI writes an affine. Programs that go by another part of the header than nibabel does, as ITK, FSL and SPM may,
    would place such a map elsewhere than the image. So where a map is on its image's grid, its qform, sform, codes,
    voxel sizes and units are the image's own. Images from DICOM have scanner coordinates in mm.
    """

    _meta: Mapping = MappingProxyType({})

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """Take the affine, and where the image's header says that it lies."""
        super().set_metadata(meta_dict, resample, **options)
        self._meta = meta_dict or {}

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the whole file; a volume of one slice keeps its third axis."""
        if self.data_obj is not None and self.data_obj.ndim == 2:
            self.data_obj = self.data_obj[..., None]
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        header = place_of_map(self._meta, shape=image.shape, affine=image.affine)
        header.set_data_dtype(image.get_data_dtype())
        with whole_file(filename) as temporary:
            # without affine, for nibabel would change the header by it
            nib.save(nib.Nifti1Image(image.dataobj, None, header), temporary)
