from .checks import CheckLabelsd as CheckLabelsd
from .checks import CheckVolumed as CheckVolumed
from .intensity import ScalePercentilesd as ScalePercentilesd
from .load import LoadVolumed as LoadVolumed
from .save_dicom_seg import SaveDicomSegd as SaveDicomSegd
from .save_dicom_seg import write_dicom_seg as write_dicom_seg
from .slices import CASE as CASE
from .slices import RandSlicesd as RandSlicesd
from .slices import SpacingOfKeysd as SpacingOfKeysd
from .slices import StackSlicesd as StackSlicesd
from .slices import body_mask as body_mask

__all__ = [
    "CASE",
    "CheckLabelsd",
    "CheckVolumed",
    "LoadVolumed",
    "RandSlicesd",
    "SaveDicomSegd",
    "ScalePercentilesd",
    "SpacingOfKeysd",
    "StackSlicesd",
    "body_mask",
    "write_dicom_seg",
]
