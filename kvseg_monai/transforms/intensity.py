"""Intensities of a volume: brought to a scale that does not depend on the scanner."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, NormalizeIntensity, ScaleIntensityRange

from kvseg_monai.errors import InputError

NORMALIZATIONS = ("percentiles", "zscore", "zscore_slice")


class ScalePercentilesd(MapTransform):
    """MONAI's ``ScaleIntensityRangePercentilesd``, which sorts a volume for each of the two percentiles, in one pass.

    Args:
        keys: volumes (C, X, Y, Z); the percentiles are those of all channels together.
        lower: percentile, 0 to 100, that becomes ``b_min``.
        upper: percentile that becomes ``b_max``.
        b_min: least value of the result.
        b_max: largest value of the result.
        clip: let no value lie outside.
    """

    def __init__(
        self, keys: KeysCollection, *, lower: float, upper: float, b_min: float, b_max: float, clip: bool = False
    ) -> None:
        super().__init__(keys)
        self.percentiles = (lower, upper)
        self.target = {"b_min": b_min, "b_max": b_max, "clip": clip}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale; a volume whose percentiles are equal has the lower subtracted alone, with MONAI's warning."""
        result = dict(data)
        for key in self.key_iterator(result):
            voxels = torch.as_tensor(result[key]).detach().cpu().numpy()
            low, high = np.percentile(voxels, self.percentiles).astype(np.float32)
            result[key] = ScaleIntensityRange(low, high, **self.target)(result[key])
        return result


class NormalizeVolumed(MapTransform):
    """Bring volumes to one scale of intensities, in the way that is named.

    ``percentiles``: the percentiles 0.5 and 99.5 become 0 and 1, and nothing lies outside. ``zscore``: mean 0 and
    standard deviation 1 over the volume, by MONAI's ``NormalizeIntensity``; ``zscore_slice``: over each slice. What is
    beyond the volume, on the canvas, is 0 in any case: with the first that is air, with the others the mean.

    Args:
        keys: volumes (C, X, Y, Z) with the slices along Z.
        method: one of :data:`NORMALIZATIONS`.

    Raises:
        InputError: there is no such method.
    """

    def __init__(self, keys: KeysCollection, method: str) -> None:
        super().__init__(keys)
        if method not in NORMALIZATIONS:
            raise InputError(f"--normalization is {method!r}; it must be one of {', '.join(NORMALIZATIONS)}")
        self.method = method
        self.percentiles = ScalePercentilesd(keys, lower=0.5, upper=99.5, b_min=0, b_max=1, clip=True)
        self.zscore = NormalizeIntensity(channel_wise=method == "zscore_slice")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalize."""
        if self.method == "percentiles":
            return self.percentiles(data)
        result = dict(data)
        for key in self.key_iterator(result):
            volume = result[key].contiguous()  # sums go along memory: the same to the bit, however the file is stored
            if self.method == "zscore_slice":  # slices take the place of channels
                result[key] = self.zscore(volume.movedim(-1, 0)).movedim(0, -1)
            else:
                result[key] = self.zscore(volume)
        return result
