"""Orientation of a volume: turned so that the slices to be cut lie along its last axis.

Shapes: a volume as loaded is (C, I, J, K), and turned (C, X, Y, Z) with the slices along Z.
"""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Orientation, Orientationd
from monai.utils import TraceKeys
from torch import Tensor

from kvseg_monai.utils.geometry import PLANES, check_slice_axis, plane_of

# Where X, Y and Z run to, as a radiologist sees the slice with X to the right and Y down. All are turns of one another
# and none is a mirror image, so that left and right stay what they are.
AXCODES = {"sagittal": "PIR", "coronal": "LIP", "axial": "LPS"}


class SliceOrientationd(Orientationd):
    """MONAI's ``Orientationd``, towards the plane in which slices are cut: axial LPS, coronal LIP, sagittal PIR.

    Columns of a slice run to the patient's left, or to the back in a sagittal one; rows run to the back in an axial
    slice, else to the feet. Oblique volumes are turned to the nearest axes, not resampled. The plane is that of the
    first key, for all of them: an image and its label map are cut alike.

    Args:
        keys: volumes, the image first.
        slice_axis: one of :data:`kvseg_monai.utils.geometry.SLICE_AXES`, see there under ``plane_of``.

    Raises:
        InputError: there is no such plane.
    """

    def __init__(self, keys: KeysCollection, slice_axis: str = "auto") -> None:
        super().__init__(keys, axcodes=AXCODES["axial"], labels=None)
        check_slice_axis(slice_axis)
        self.slice_axis = slice_axis
        self._turns = [Orientation(axcodes=AXCODES[plane], labels=None) for plane in PLANES]

    def __call__(self, data: Mapping[Hashable, Tensor], lazy: bool | None = None) -> dict[Hashable, Tensor]:
        """Turn the volumes."""
        result = dict(data)
        plane = None
        for key in self.key_iterator(result):
            volume: Any = result[key]
            if plane is None:
                plane = plane_of(volume.shape[1:], volume.affine.cpu().numpy(), self.slice_axis)
            result[key] = self._turns[plane](volume, lazy=lazy)
        return result

    def inverse(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Turn the volumes back, each by what turned it."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self._turn_of(result[key]).inverse(result[key])
        return result

    def _turn_of(self, volume: Any) -> Orientation:
        done = volume.applied_operations if isinstance(volume, MetaTensor) else []
        made_by = done[-1].get(TraceKeys.ID) if done else None
        return next((turn for turn in self._turns if id(turn) == made_by), self._turns[-1])
