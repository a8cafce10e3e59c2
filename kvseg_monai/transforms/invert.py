"""From the scores of a network to a label map on the grid of the file.

Shapes: scores are (classes, X, Y, Z) on the network's grid, slices along Z; a label map is (1, I, J, K) on the file's.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    Activations,
    AsDiscrete,
    Compose,
    Invertd,
    KeepLargestConnectedComponent,
    MapTransform,
)
from torch import Tensor

from kvseg_monai.errors import InputError, OptionError
from kvseg_monai.utils.flags import as_flag
from kvseg_monai.utils.tensors import plain

PROBABILITIES = "probabilities"  # key
NOTHING = 1e-6  # a probability of all classes together
SLICES_AT_ONCE = 8  # what one block of scores takes on the file's grid stays within the processor's cache


class LabelMapOnFileGridd(MapTransform):
    """Turn scores into label maps on the grid of the image's file: softmax, inversion and argmax of MONAI in one.

    ``Invertd`` resamples the probabilities of all classes as volumes. Here the grids differ by the order and direction
    of axes, a crop and the size of voxels, so each axis is interpolated by itself, block by block of slices, and only
    labels are kept: the same label map for a tenth of time and memory. What lies outside of the crop is background.

    Where the grids differ by anything else, MONAI's transforms do it.

    Args:
        keys: scores, logits of all classes.
        transform: that the image went through, for MONAI's ``Invertd``.
        orig_keys: of the image.
        keep_largest: label values of which only the largest piece is kept, in 3D, where voxels that share a corner are
            of one piece: MONAI's ``KeepLargestConnectedComponent``. The rest becomes background.
        probabilities: true: also leave, under :data:`PROBABILITIES`, the probabilities that the labels come from.

    Raises:
        InputError: a value of ``keep_largest`` is none of the classes, when scores are turned.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Compose,
        orig_keys: str = "image",
        *,
        keep_largest: Sequence[int] = (),
        probabilities: bool | str = False,
    ) -> None:
        super().__init__(keys)
        self.transform, self.image_key = transform, orig_keys
        self.keep_largest = _label_values(keep_largest)
        self.probabilities = as_flag(probabilities, "save_probabilities")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each (classes, X, Y, Z) by its (1, I, J, K), whose metadata are the image's as it was read.

        Probabilities are (classes, I, J, K) float32, 1 for the background outside of the crop.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            self._refuse_other_labels(classes=len(result[key]))
            image = result[self.image_key]
            axes = grid_axes(image)
            if axes is None:
                labels, shares = self._by_monai(result, key)
            else:
                affine, meta = _file_affine(image), _file_meta(image)
                found, kept = label_map(plain(result[key]), axes, probabilities=self.probabilities)
                labels = MetaTensor(found[None], affine=affine, meta=meta)
                shares = None if kept is None else MetaTensor(kept, affine=affine, meta=meta)
            if self.keep_largest:
                labels = KeepLargestConnectedComponent(self.keep_largest)(labels)
            result[key] = labels
            if shares is not None:
                result[PROBABILITIES] = shares
        return result

    def _by_monai(self, data: Mapping[Hashable, Any], key: Hashable) -> tuple[Tensor, Tensor | None]:
        probabilities = Activations(softmax=True)(data[key])
        invert = Invertd(key, self.transform, self.image_key, nearest_interp=False, to_tensor=True)
        inverted = invert({**data, key: probabilities})[key]
        labels = AsDiscrete(argmax=True)(inverted)
        if not self.probabilities:
            return labels, None
        total = inverted.sum(0)  # less than 1 at the border of the crop, 0 outside of it
        shares = torch.where(total > NOTHING, inverted / total.clamp_min(NOTHING), 0.0)
        shares[0] += total <= NOTHING
        return labels, shares.float()

    def _refuse_other_labels(self, classes: int) -> None:
        if wrong := [value for value in self.keep_largest if not 0 < value < classes]:
            raise OptionError(
                f"--keep_largest names label {wrong[0]}; the network has the labels 1 to {classes - 1} beside the "
                "background, so name some of these, such as [1], or [] for none"
            )


def _label_values(given: Any) -> list[int]:
    values = list(given) if isinstance(given, list | tuple) else [given]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise InputError(f"--keep_largest is {given!r}; it must be a list of label values, such as [1,2], or []")
    return values


@dataclass(frozen=True)
class Axis:
    """An axis of the file, and where its voxels lie on the network's grid.

    Attributes:
        source: the axis of the network's grid: 0, 1 or 2.
        places: (n,) position of each of the file's n voxels, in voxels of the network's grid.
    """

    source: int
    places: Tensor


def grid_axes(image: Any) -> list[Axis] | None:
    """Return how the three axes of an image's file lie on the grid that the image has now.

    Returns:
        None where an axis of the one is no axis of the other, slices lie between slices, or the image does not know
        its file.
    """
    if not isinstance(image, MetaTensor) or "original_affine" not in image.meta or "spatial_shape" not in image.meta:
        return None
    shape = np.asarray(image.meta["spatial_shape"]).ravel()
    # from the file's voxels to the network's
    onto = np.linalg.inv(image.affine.cpu().double().numpy()) @ _file_affine(image).numpy()
    sources = np.abs(onto[:3, :3]).argmax(axis=0)
    largest = onto[sources, range(3)]
    rest = onto[:3, :3].copy()
    rest[sources, range(3)] = 0
    if len(shape) != 3 or sorted(sources) != [0, 1, 2] or np.abs(rest * shape).max() > 1e-3:
        return None
    axes = []
    for source, step, length in zip(sources, largest, shape, strict=True):
        places = torch.from_numpy(onto[source, 3] + step * np.arange(length))
        if source == 2:
            whole = places.round()
            if abs(abs(step) - 1) > 1e-3 or float((places - whole).abs().max()) > 1e-2:
                return None
            places = whole
        axes.append(Axis(int(source), places))
    return axes


def label_map(scores: Tensor, axes: Sequence[Axis], *, probabilities: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the class of the largest probability at each voxel of the file.

    Args:
        scores: (classes, X, Y, Z) logits.
        axes: of the file, as :func:`grid_axes` returns them.
        probabilities: return these as well.

    Returns:
        (I, J, K) in uint8, or int16 of more than 256 classes; 0 outside of the network's grid. And the probabilities,
        (classes, I, J, K) in float32, 1 for class 0 outside; None where they are not asked for.
    """
    along = {axis.source: axis.places.to(scores.device) for axis in axes}
    steps = [_Interpolation(along[axis], scores.shape[axis + 1], 2 + axis) for axis in (0, 1)]
    kind = torch.uint8 if len(scores) <= 256 else torch.int16
    shape = [len(along[axis]) for axis in (2, 0, 1)]
    labels = torch.zeros(shape, dtype=kind, device=scores.device)  # (K', I', J')
    shares = None
    if probabilities:
        shares = torch.zeros((len(scores), *shape), device=scores.device)
        shares[0] = 1
    slices = along[2].long()
    inside = ((slices >= 0) & (slices < scores.shape[3])).nonzero()[:, 0]
    for chosen in inside.split(SLICES_AT_ONCE):
        block = scores.permute(3, 0, 1, 2)[slices[chosen]].float()  # (k, classes, X, Y)
        if probabilities or not all(step.keeps for step in steps):
            block = block.softmax(1)
        for step in reversed(steps):
            block = step(block)
        found = block.max(1).indices.to(kind)
        for step in steps:
            found = step.clear_outside(found)
            block = step.clear_outside(block) if probabilities else block
        labels[chosen] = found
        if shares is not None:
            block[:, 0] += 1 - block.sum(1)
            shares[:, chosen] = block.movedim(1, 0)
    order = [{2: 0, 0: 1, 1: 2}[axis.source] for axis in axes]
    kept = None if shares is None else shares.permute(0, *(1 + axis for axis in order)).contiguous()
    return labels.permute(order).contiguous(), kept


class _Interpolation:
    """Linear interpolation of (k, classes, X, Y) at places along X or Y; beyond the first and last voxel theirs."""

    def __init__(self, places: Tensor, length: int, dim: int) -> None:
        self.dim = dim
        self.inside = (places > -1) & (places < length)
        nearest = places.round()
        self.keeps = bool((places - nearest).abs().max() < 1e-4)  # a crop, or a turn, alone
        places = (nearest if self.keeps else places).clamp(0, length - 1)
        self.lower = places.long().clamp(max=max(length - 2, 0))
        self.upper = (self.lower + 1).clamp(max=length - 1)
        self.weight = (places - self.lower).float()

    def __call__(self, block: Tensor) -> Tensor:
        if self.keeps:
            return block.index_select(self.dim, self.lower + self.weight.long())
        if self.dim == 3:  # a matrix product is faster than gathering single numbers
            matrix = block.new_zeros(block.shape[3], len(self.lower))
            column = torch.arange(len(self.lower), device=block.device)
            matrix[self.lower, column] = 1 - self.weight
            matrix[self.upper, column] += self.weight
            return block @ matrix
        lower, upper = (block.index_select(2, index) for index in (self.lower, self.upper))
        return lower.lerp_(upper, self.weight[:, None])

    def clear_outside(self, labels: Tensor) -> Tensor:
        """Set labels (k, X, Y), or probabilities (k, classes, X, Y), to 0 where the grid ends."""
        if self.inside.all():
            return labels
        inside = self.inside[:, None] if self.dim == 2 else self.inside
        return labels * inside


def _file_affine(image: MetaTensor) -> Tensor:
    return torch.as_tensor(image.meta["original_affine"], dtype=torch.float64, device="cpu")


def _file_meta(image: MetaTensor) -> dict[str, Any]:
    return {name: value for name, value in image.meta.items() if name != "affine"}
