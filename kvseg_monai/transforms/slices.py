"""MONAI transforms for MRI volumes that a 2D network sees slice by slice.

Shapes: a volume is (C, X, Y, Z) with the slices along Z; a slice is (C, X, Y).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Spacingd
from skimage.filters import threshold_otsu
from torch import Tensor

from kvseg_monai.utils.tensors import plain

CASE = "case"  # key of the name of a case's image, which stays when the image has become a plain tensor
SLICES = "slices"  # key of a case's slices that show a class, per class
SIZES = "sizes"  # key of a batch's sizes of slices, (B, 2), before they were filled up to one size


def body_mask(image: Tensor) -> Tensor:
    """Find the body in an MR volume, for ``CropForegroundd(select_fn=body_mask)``.

    Otsu's threshold separates air from tissue. A voxel counts when it is brighter than a quarter of the way from the
    mean of the one to the mean of the other (fat is far brighter than muscle, so half of the way would lose organs).
    Rows, columns and slices with fewer than 1 % such voxels hold only noise or ghosts and are cleared, so that the
    bounding box is the body's.

    Args:
        image: (C, X, Y, Z).

    Returns:
        A mask of the same shape; where nothing stands out, all of it.
    """
    volume = plain(image)[0].float()
    sample = volume[::2, ::2].clip(max=float(_quantile(volume.flatten()[::7], 0.99))).double()
    lowest = sample.min()
    if sample.max() <= lowest:
        return torch.ones(image.shape, dtype=torch.bool)
    above = (sample - lowest).flatten().numpy()  # from 0 on, the bins have room at any offset
    threshold = lowest + threshold_otsu(above)
    air, tissue = sample[sample <= threshold].mean(), sample[sample > threshold].mean()
    mask = volume > air + (tissue - air) / 4
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = mask.float().mean(dim=others) > 0.01
        mask.index_fill_(axis, filled.logical_not().nonzero()[:, 0], False)
    if not mask.any():
        mask = torch.ones_like(mask)
    return mask[None].expand(image.shape)


def _quantile(values: Tensor, share: float) -> Tensor:
    """Return what ``torch.quantile`` does of a row of numbers, which it would sort, by selecting two of them."""
    rank = torch.tensor(share, dtype=values.dtype) * (len(values) - 1)
    low = int(rank)
    high = min(low + 1, len(values) - 1)
    ordered = torch.from_numpy(np.partition(values.numpy(), (low, high)))
    return torch.lerp(ordered[low], ordered[high], rank - low)


class SpacingOfKeysd(Spacingd):
    """MONAI's ``Spacingd`` that touches its keys alone.

    MONAI's takes every entry whose name begins with that of an image for its metadata, and fails on ``image_path``, in
    which MONAI Label keeps the name of the file.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample."""
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(dict(data))}, lazy)}


class StackSlicesd(MapTransform):
    """Give each slice its neighbours as further channels (2.5D); ``offsets=[0]`` leaves the volume as it is.

    Args:
        keys: volumes (1, X, Y, Z).
        offsets: slice offsets, one channel each; at the ends of the volume the last slice repeats.
    """

    def __init__(self, keys: KeysCollection, offsets: Sequence[int] = (0,)) -> None:
        super().__init__(keys)
        self.offsets = tuple(offsets)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return (len(offsets), X, Y, Z)."""
        result = dict(data)
        if self.offsets == (0,):
            return result
        for key in self.key_iterator(result):
            volume = result[key]
            index = torch.arange(volume.shape[-1])
            stacked = [volume[..., (index + offset).clip(0, len(index) - 1)] for offset in self.offsets]
            result[key] = torch.cat(stacked)
        return result


class IndexSlicesd(MapTransform):
    """Make volumes ready to draw slices from, once: note which slices show which class, and store slice after slice.

    The voxels of a slice then lie side by side in memory, where in a volume as loaded each lies in another cache line.

    Args:
        keys: volumes (C, X, Y, Z), cropped alike.
        label_key: the label map among them, (1, X, Y, Z) whole numbers.
    """

    def __init__(self, keys: KeysCollection, *, label_key: str = "label") -> None:
        super().__init__(keys)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the volumes as they are to look at, and under :data:`SLICES` what :func:`slices_of_classes` does."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = result[key].movedim(-1, 0).contiguous().movedim(0, -1)
        return {**result, SLICES: slices_of_classes(result[self.label_key])}


def slices_of_classes(label: Tensor) -> list[Tensor]:
    """Return the numbers of the slices that show a class, per class that is there, background left out.

    Args:
        label: (1, X, Y, Z) whole numbers from 0 on.
    """
    slices = plain(label)[0].movedim(-1, 0).flatten(1)
    values = slices.flatten().int().bincount().nonzero()[:, 0].tolist()
    return [(slices == value).any(1).nonzero()[:, 0] for value in values if value > 0]


class RandSlicesd(Randomizable, MapTransform):
    """Draw slices from a volume for training, so that slices without any label do not drown the others.

    Each draw first decides, with ``foreground_probability``, for a slice that holds labels. It then picks a class
    among those present, all alike, and a slice among those that hold it: rare organs come as often as large ones.
    The other draws take any slice. Which slices hold what is under :data:`SLICES`, by :class:`IndexSlicesd`, or found
    anew at each call.

    Args:
        keys: volumes (C, X, Y, Z), cropped alike.
        label_key: the label map, (1, X, Y, Z) whole numbers.
        num_samples: slices per volume.
        foreground_probability: share of the draws that must show a label.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        label_key: str = "label",
        num_samples: int = 1,
        foreground_probability: float = 0.75,
    ) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.num_samples = num_samples
        self.foreground_probability = foreground_probability

    def _draw(self, slices_of_class: list[Tensor], depth: int) -> int:
        if slices_of_class and self.R.rand() < self.foreground_probability:
            slices = slices_of_class[self.R.randint(len(slices_of_class))]
            return int(slices[self.R.randint(len(slices))])
        return int(self.R.randint(depth))

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return ``num_samples`` dictionaries whose ``keys`` are slices (C, X, Y), plain float32 or label tensors.

        The name of the case, under :data:`CASE`, stays with them; all else goes.
        """
        label = data[self.label_key]
        slices = data[SLICES] if SLICES in data else slices_of_classes(label)
        chosen = [self._draw(slices, label.shape[-1]) for _ in range(self.num_samples)]
        volumes = {key: plain(data[key]) for key in self.key_iterator(dict(data))}
        case: dict[Hashable, Any] = {CASE: data[CASE]} if CASE in data else {}
        return [{**case, **{key: volume[..., index].float() for key, volume in volumes.items()}} for index in chosen]


def collate_slices(volumes: Sequence[Sequence[Mapping[Hashable, Any]]]) -> dict[Hashable, Any]:
    """Return one batch of the slices that :class:`RandSlicesd` drew from some volumes, for a ``DataLoader``.

    Slices (C, X, Y) of several sizes are filled up with zeros behind their end, to the largest; their own sizes are
    under :data:`SIZES`, (B, 2). What is no tensor becomes a list.
    """
    slices = [drawn for volume in volumes for drawn in volume]
    batch: dict[Hashable, Any] = {}
    for key, first in slices[0].items():
        values = [drawn[key] for drawn in slices]
        if isinstance(first, Tensor):
            sizes = [value.shape[-2:] for value in values]
            batch[SIZES] = torch.tensor(sizes)
            padded = first.new_zeros(len(values), len(first), *(max(sides) for sides in zip(*sizes, strict=True)))
            for target, value in zip(padded, values, strict=True):
                target[:, : value.shape[1], : value.shape[2]] = value
            batch[key] = padded
        else:
            batch[key] = values
    return batch
