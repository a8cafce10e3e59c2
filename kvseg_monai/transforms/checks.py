"""Checks of loaded volumes and label maps: transforms that refuse what cannot be segmented or scored, in one sentence.

The sentence names the file, the problem, the rule and the remedy. Values are not judged beyond what is listed here; in
particular, a CT image whose air was cut away, or whose values were shifted or windowed, is not recognised.

Shapes: volumes as loaded, (X, Y, Z), without a channel; affines (4, 4), voxel index to world mm.
"""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from kvseg_monai.errors import InputError
from kvseg_monai.utils.geometry import (
    PLANES,
    SPACING_MM,
    check_slice_axis,
    corner_distance,
    plane_of,
    sides_of,
    spacing_of,
    spans_volume,
)

logger = logging.getLogger(__name__)

LARGEST = 1e30  # sums of more overflow
EXTENT_MM = 2500.0  # the tallest patient, whole; more is a wrong unit, and would be resampled to gigabytes
# Hounsfield units of air and of soft tissue with blood and fat, and the share of the voxels that each must have. An MR
# image has neither: magnitudes are not negative, and scores in standard deviations stay far from -900.
AIR_HU, TISSUE_HU, CT_SHARE = (-1100, -900), (-200, 300), 0.05
SAME_GRID = 0.5  # of the smallest voxel side: label and image may not differ by more


class CheckVolumed(MapTransform):
    """Refuse what is no MR volume that can be segmented slice by slice; place it right after loading.

    Refused are: other than three dimensions; affines that are not finite, or whose axes are parallel; voxels smaller
    than 0.05 mm or larger than 50 mm along an axis; NaN or infinite voxels; an image of one value; CT by its values: 5
    % of the voxels are air in Hounsfield units, -1100 to -900, and 5 % soft tissue,
    -200 to 300. DICOM files of another modality by their header are left out before, where a folder is searched.

    A volume of one slice is right, and logged once at the level INFO; it is refused where the network wants
    neighbours, and where it lies in another plane than that in which slices are cut.

    Args:
        keys: images.
        slice_offsets: the offsets of :class:`kvseg_monai.transforms.slices.StackSlicesd`.
        slice_axis: that of :class:`kvseg_monai.transforms.SliceOrientationd`.

    Raises:
        InputError: the sentence.
    """

    def __init__(self, keys: KeysCollection, slice_offsets: Sequence[int] = (0,), *, slice_axis: str = "axial") -> None:
        super().__init__(keys)
        check_slice_axis(slice_axis)
        self.slice_offsets, self.slice_axis = list(slice_offsets), slice_axis
        self._logged_one_slice = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check, and return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            problem = first_problem(data[key], self.slice_axis) or self._missing_neighbours(data[key])
            if problem:
                raise InputError(f"{name_of(data[key], key)} {problem}")
        return dict(data)

    def _missing_neighbours(self, image: MetaTensor) -> str | None:
        if sides(image)[_plane(image, self.slice_axis)] > 1:
            return None
        if any(self.slice_offsets):
            return (
                f"has one slice, and --slice_offsets {self.slice_offsets} gives each slice its neighbours: give a "
                "volume of several slices, or use a network that was trained with --slice_offsets [0]"
            )
        if not self._logged_one_slice:
            logger.info("%s has one slice; it is processed like any volume", name_of(image, "a volume"))
            self._logged_one_slice = True
        return None


class CheckLabelsd(MapTransform):
    """Refuse a label map that is not on its image's grid, or holds other values than the classes.

    The grids may differ by half of the smallest voxel side: no label then lies in another voxel.

    Args:
        keys: label maps.
        num_classes: the classes, background included; values are 0 .. num_classes - 1.
        image_key: the image that they belong to.

    Raises:
        InputError: naming the file and the problem.
    """

    def __init__(self, keys: KeysCollection, num_classes: int, image_key: str = "image") -> None:
        super().__init__(keys)
        self.num_classes, self.image_key = num_classes, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check, and return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            problem = other_grid(data[key], data[self.image_key]) or undeclared_values(data[key], self.num_classes)
            if problem:
                raise InputError(f"{name_of(data[key], key)} {problem}")
        return dict(data)


def first_problem(image: MetaTensor, slice_axis: str = "axial") -> str | None:
    """Return what keeps an image from being segmented as an MR volume, slice by slice of that plane."""
    other_plane = partial(_other_plane, slice_axis=slice_axis)
    checks = (other_dimensions, _broken_geometry, other_plane, _broken_voxels, _resembles_ct)
    return next(filter(None, (check(image) for check in checks)), None)


def other_dimensions(volume: Tensor) -> str | None:
    """Return what is wrong where a volume has not three dimensions, as the rest of a sentence."""
    shape = _text(volume.shape)
    if volume.numel() == 0:
        return f"is {shape} voxels, that is none; get the file again"
    if volume.ndim < 3:
        return f"is {shape} voxels; a volume has three dimensions, one slice too: store it as {shape} x 1"
    if volume.ndim > 3:
        return (
            f"is {shape} voxels: a series over time, several contrasts, or colours; a volume has three dimensions: "
            "give one of them as a file of its own"
        )
    return None


def other_grid(label: MetaTensor, image: MetaTensor) -> str | None:
    """Return where a label map and its image are not on one grid, in voxels or in mm."""
    shapes = [volume.shape[:3] for volume in (label, image)]
    name = name_of(image, "")
    if other_dimensions(label) or shapes[0] != shapes[1]:
        return (
            f"is {_text(label.shape)} voxels and its image {name} {_text(image.shape)}; a label map is on its image's "
            "grid: correct the pair"
        )
    distance = corner_distance(shapes[0], label.affine.cpu().numpy(), image.affine.cpu().numpy())
    allowed = SAME_GRID * min(spacing_of(image.affine.cpu().numpy()))
    if distance <= allowed:  # False for NaN, too
        return None
    return (
        f"lies up to {distance:.3g} mm beside its image {name} by their affines; {allowed:.3g} mm, half a voxel, is "
        "allowed: correct the affine of the one that is wrong"
    )


def undeclared_values(label: MetaTensor, num_classes: int) -> str | None:
    """Return which values of a label map are none of 0 .. num_classes - 1."""
    values = label.as_tensor()
    low, high = values.aminmax()
    if low >= 0 and high <= num_classes - 1 and torch.equal(values, values.round()):  # none of it with NaN
        return None
    right = (values >= 0) & (values < num_classes) & (values == values.round())  # False for NaN, too
    found = ", ".join(f"{value:g}" for value in values[~right].unique()[:5].tolist())
    return (
        f"holds the label values [{found}]; the network knows 0 to {num_classes - 1}: correct the labels, or set "
        "--network_def#out_channels"
    )


def sides(volume: MetaTensor) -> list[int]:
    """Return the number of voxels along the patient's axes: left to right, back to front, feet to head."""
    return sides_of(volume.shape, volume.affine.cpu().numpy())


def name_of(volume: MetaTensor, default: Hashable) -> str:
    """Return the file that a volume was loaded from."""
    return str(volume.meta.get("filename_or_obj", default))


def _broken_geometry(image: MetaTensor) -> str | None:
    affine = image.affine.double().cpu().numpy()
    if not np.isfinite(affine).all():
        return "has an affine with NaN or infinite numbers; without it no voxel has a place: correct the header"
    spacing = spacing_of(affine)
    low, high = SPACING_MM
    if not all(low <= side <= high for side in spacing):
        return (
            f"has voxels of {_text(f'{side:.4g}' for side in spacing)} mm; {low:g} to {high:g} mm is allowed along "
            "each axis: correct the header, whose unit must be mm"
        )
    extent = [side * count for side, count in zip(spacing, image.shape, strict=False)]
    if max(extent) > EXTENT_MM:
        return (
            f"covers {_text(f'{side:.4g}' for side in extent)} mm; at most {EXTENT_MM:g} mm is allowed along an axis: "
            "correct the header's voxel size"
        )
    if not spans_volume(affine):
        return "has an affine whose axes do not span a volume; they must be at right angles: correct the header"
    return None


def _plane(image: MetaTensor, slice_axis: str) -> int:
    return plane_of(image.shape, image.affine.cpu().numpy(), slice_axis)


def _other_plane(image: MetaTensor, slice_axis: str) -> str | None:
    cut, across = _plane(image, slice_axis), sides(image)
    lies = next((axis for axis in range(3) if axis != cut and across[axis] == 1), None)
    if lies is None:
        return None
    if across.count(1) > 1:
        return f"is a single row of voxels, {_text(image.shape)}, and no slice; get the file again"
    return (
        f"is one {PLANES[lies]} slice by its affine, and --slice_axis {slice_axis} cuts volumes into {PLANES[cut]} "
        f"slices: give a whole volume, or weights that were trained with --slice_axis {PLANES[lies]}, or correct the "
        f"affine if the slice is {PLANES[cut]}"
    )


def _broken_voxels(image: MetaTensor) -> str | None:
    voxels = image.as_tensor()
    low, high = voxels.aminmax()
    if not (low >= -LARGEST and high <= LARGEST):  # as with NaN, which is both then
        count = int((~(voxels.abs() <= LARGEST)).sum())
        return (
            f"has {count} voxel(s) that are NaN, infinite or beyond {LARGEST:g}; all must be numbers: replace them, or "
            "get the file again"
        )
    if low == high:
        return f"is {float(low):g} in every voxel; there is nothing to see in it: get the file again"
    return None


def _resembles_ct(image: MetaTensor) -> str | None:
    voxels = image.as_tensor()
    if voxels.min() > AIR_HU[1]:  # as of all magnitudes: two passes are saved
        return None
    if not (_share(voxels, AIR_HU) >= CT_SHARE and _share(voxels, TISSUE_HU) >= CT_SHARE):
        return None
    return (
        f"looks like CT: {_share(voxels, AIR_HU):.0%} of the voxels are within {AIR_HU[0]} to {AIR_HU[1]}, air in "
        "Hounsfield units; the networks read MR: give an MR volume, or if it is one, scale it to values from 0 on"
    )


def _share(voxels: Tensor, limits: tuple[int, int]) -> float:
    return float(((voxels >= limits[0]) & (voxels <= limits[1])).float().mean())


def _text(numbers: Iterable[Any]) -> str:
    return " x ".join(str(number) for number in numbers)
