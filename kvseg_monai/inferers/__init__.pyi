from .precision import PRECISIONS as PRECISIONS
from .precision import PrecisionInferer as PrecisionInferer
from .precision import precision_of as precision_of
from .slices import VolumeInferer as VolumeInferer

__all__ = ["PRECISIONS", "PrecisionInferer", "VolumeInferer", "precision_of"]
