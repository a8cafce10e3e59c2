"""Intensities of a volume: scaled to a range that does not depend on the scanner."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, ScaleIntensityRange


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
