from .average import AverageWeights as AverageWeights
from .average import attached as attached
from .checkpoints import Checkpoints as Checkpoints
from .checkpoints import StrictCheckpointLoader as StrictCheckpointLoader
from .clock import TrainingClock as TrainingClock
from .invalid_cases import GuardedDataset as GuardedDataset
from .invalid_cases import SkipBadCases as SkipBadCases
from .invalid_cases import require_cases as require_cases
from .invalid_cases import training_cases as training_cases
from .invalid_cases import valid_cases as valid_cases
from .minutes import StopAfterMinutes as StopAfterMinutes
from .schedule import WarmupSchedule as WarmupSchedule
from .score_volumes import ScoreVolumes as ScoreVolumes
from .steps import StopAfterSteps as StopAfterSteps
from .steps import check_steps as check_steps
from .steps import total_steps as total_steps
from .training import ClipGradients as ClipGradients
from .training import ProgressBar as ProgressBar
from .training import SeedEpochs as SeedEpochs
from .training import StopOnNan as StopOnNan
from .training import loss_and_rate as loss_and_rate
from .training import shown_image_and_label as shown_image_and_label
from .training import shown_prediction as shown_prediction

__all__ = [
    "AverageWeights",
    "Checkpoints",
    "ClipGradients",
    "GuardedDataset",
    "ProgressBar",
    "ScoreVolumes",
    "SeedEpochs",
    "SkipBadCases",
    "StopAfterMinutes",
    "StopAfterSteps",
    "StopOnNan",
    "StrictCheckpointLoader",
    "TrainingClock",
    "WarmupSchedule",
    "attached",
    "check_steps",
    "loss_and_rate",
    "require_cases",
    "shown_image_and_label",
    "shown_prediction",
    "total_steps",
    "training_cases",
    "valid_cases",
]
