from .ensemble import Ensemble as Ensemble
from .precision import PRECISIONS as PRECISIONS
from .precision import PrecisionInferer as PrecisionInferer
from .precision import precision_of as precision_of
from .slices import VolumeInferer as VolumeInferer

__all__ = ["PRECISIONS", "Ensemble", "PrecisionInferer", "VolumeInferer", "precision_of"]
