"""The input guard: transforms that refuse a volume or a label map as soon as it is loaded, each with one sentence.

The sentence says file, finding, rule and remedy. Shapes: volumes as loaded, (X, Y, Z), without a channel.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from kvseg_monai.errors import InputError
from kvseg_monai.transforms.findings import first_problem, name_of, other_grid, sides, undeclared_values

logger = logging.getLogger(__name__)


class CheckVolumed(MapTransform):
    """Refuse what is no MR volume that can be segmented slice by slice; place it right after loading.

    Refused are: other than three dimensions; affines that are not finite, or whose
    axes are parallel; voxels smaller than 0.05 mm or larger than 50 mm along an axis; NaN or infinite voxels; an image
    of one value; CT by its values: 5 % of the voxels are air in Hounsfield units, -1100 to -900, and 5 % soft tissue,
    -200 to 300. DICOM files of another modality by their header are left out before, where a folder is searched.

    A volume of one axial slice is right, and told once at the level INFO; it is refused where the network wants
    neighbours. One sagittal or coronal slice is refused: volumes are cut across the patient's long axis.

    Args:
        keys: images.
        slice_offsets: the offsets of :class:`kvseg_monai.transforms.slices.StackSlicesd`.

    Raises:
        InputError: the sentence.
    """

    def __init__(self, keys: KeysCollection, slice_offsets: Sequence[int] = (0,)) -> None:
        super().__init__(keys)
        self.slice_offsets = list(slice_offsets)
        self._told_of_one_slice = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check, and return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            finding = first_problem(data[key]) or self._missing_neighbours(data[key])
            if finding:
                raise InputError(f"{name_of(data[key], key)} {finding}")
        return dict(data)

    def _missing_neighbours(self, image: MetaTensor) -> str | None:
        if sides(image)[2] > 1:
            return None
        if any(self.slice_offsets):
            return (
                f"has one slice, and --slice_offsets {self.slice_offsets} gives each slice its neighbours: give a "
                "volume of several slices, or use a network that was trained with --slice_offsets [0]"
            )
        if not self._told_of_one_slice:
            logger.info("%s has one slice; it is processed like any volume", name_of(image, "a volume"))
            self._told_of_one_slice = True
        return None


class CheckLabelsd(MapTransform):
    """Refuse a label map that is not on its image's grid, or holds other values than the classes.

    The grids may differ by half of the smallest voxel side: no label then lies in another voxel.

    Args:
        keys: label maps.
        num_classes: the classes, background included; values are 0 .. num_classes - 1.
        image_key: the image that they belong to.

    Raises:
        InputError: naming the file and the finding.
    """

    def __init__(self, keys: KeysCollection, num_classes: int, image_key: str = "image") -> None:
        super().__init__(keys)
        self.num_classes, self.image_key = num_classes, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check, and return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            finding = other_grid(data[key], data[self.image_key]) or undeclared_values(data[key], self.num_classes)
            if finding:
                raise InputError(f"{name_of(data[key], key)} {finding}")
        return dict(data)
