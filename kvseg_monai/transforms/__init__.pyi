from .augment import PrepareAugmentedBatch as PrepareAugmentedBatch
from .augment import RandAdjustContrastBatchd as RandAdjustContrastBatchd
from .augment import RandAffineBatchd as RandAffineBatchd
from .augment import RandFlipBatchd as RandFlipBatchd
from .augment import RandGaussianNoiseBatchd as RandGaussianNoiseBatchd
from .augment import RandScaleIntensityBatchd as RandScaleIntensityBatchd
from .checks import CheckLabelsd as CheckLabelsd
from .checks import CheckVolumed as CheckVolumed
from .intensity import NormalizeVolumed as NormalizeVolumed
from .intensity import ScalePercentilesd as ScalePercentilesd
from .invert import LabelMapOnFileGridd as LabelMapOnFileGridd
from .load import LoadVolumed as LoadVolumed
from .mr_artefacts import RandBiasFieldBatchd as RandBiasFieldBatchd
from .mr_artefacts import RandGhostingBatchd as RandGhostingBatchd
from .mr_artefacts import RandLowResolutionBatchd as RandLowResolutionBatchd
from .mr_artefacts import RandMotionBatchd as RandMotionBatchd
from .orientation import SliceOrientationd as SliceOrientationd
from .save_dicom_seg import SaveDicomSegd as SaveDicomSegd
from .save_dicom_seg import write_dicom_seg as write_dicom_seg
from .slices import CASE as CASE
from .slices import SIZES as SIZES
from .slices import SLICES as SLICES
from .slices import IndexSlicesd as IndexSlicesd
from .slices import RandSlicesd as RandSlicesd
from .slices import SpacingOfKeysd as SpacingOfKeysd
from .slices import StackSlicesd as StackSlicesd
from .slices import body_mask as body_mask
from .slices import collate_slices as collate_slices
from .slices import slices_of_classes as slices_of_classes

__all__ = [
    "CASE",
    "SIZES",
    "SLICES",
    "CheckLabelsd",
    "CheckVolumed",
    "IndexSlicesd",
    "LabelMapOnFileGridd",
    "LoadVolumed",
    "NormalizeVolumed",
    "PrepareAugmentedBatch",
    "RandAdjustContrastBatchd",
    "RandAffineBatchd",
    "RandBiasFieldBatchd",
    "RandFlipBatchd",
    "RandGaussianNoiseBatchd",
    "RandGhostingBatchd",
    "RandLowResolutionBatchd",
    "RandMotionBatchd",
    "RandScaleIntensityBatchd",
    "RandSlicesd",
    "SaveDicomSegd",
    "ScalePercentilesd",
    "SliceOrientationd",
    "SpacingOfKeysd",
    "StackSlicesd",
    "body_mask",
    "collate_slices",
    "slices_of_classes",
    "write_dicom_seg",
]
