from .checkpoints import Checkpoints as Checkpoints
from .checkpoints import StrictCheckpointLoader as StrictCheckpointLoader
from .invalid_cases import GuardedDataset as GuardedDataset
from .invalid_cases import SkipBadCases as SkipBadCases
from .invalid_cases import require_cases as require_cases
from .invalid_cases import valid_cases as valid_cases
from .score_volumes import ScoreVolumes as ScoreVolumes
from .training import ProgressBar as ProgressBar
from .training import SeedEpochs as SeedEpochs
from .training import StopOnNan as StopOnNan
from .training import shown_image_and_label as shown_image_and_label
from .training import shown_prediction as shown_prediction

__all__ = [
    "Checkpoints",
    "GuardedDataset",
    "ProgressBar",
    "ScoreVolumes",
    "SeedEpochs",
    "SkipBadCases",
    "StopOnNan",
    "StrictCheckpointLoader",
    "require_cases",
    "shown_image_and_label",
    "shown_prediction",
    "valid_cases",
]
