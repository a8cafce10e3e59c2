from .batches import FullBatchSampler as FullBatchSampler
from .datalist import read_datalist as read_datalist
from .dataset import Case as Case
from .dataset import cases as cases
from .dataset import class_names as class_names
from .dataset import notice as notice
from .dataset import require_volumes as require_volumes
from .dataset import volumes as volumes
from .folds import cases_of_fold as cases_of_fold
from .folds import cases_to_score as cases_to_score
from .folds import check_folds as check_folds
from .folds import deal_folds as deal_folds
from .folds import split_folds as split_folds
from .nifti import VOLUME_SUFFIXES as VOLUME_SUFFIXES
from .on_device import OnDevice as OnDevice
from .outputs import all_to_do as all_to_do
from .outputs import common_root as common_root
from .outputs import label_map_name as label_map_name
from .outputs import named_after_image as named_after_image
from .outputs import pending as pending
from .prepared import PreparedCases as PreparedCases
from .prepared import VolumeDataset as VolumeDataset
from .prepared import VolumeKeeper as VolumeKeeper
from .prepared import prepare_case as prepare_case
from .readers import NiftiReader as NiftiReader
from .readers import VolumeReader as VolumeReader
from .volume_store import MappedVolume as MappedVolume
from .volume_store import StoreError as StoreError
from .volume_store import VolumeStore as VolumeStore
from .writers import AtomicNibabelWriter as AtomicNibabelWriter
from .writers import ProbabilityWriter as ProbabilityWriter

__all__ = [
    "VOLUME_SUFFIXES",
    "AtomicNibabelWriter",
    "Case",
    "FullBatchSampler",
    "MappedVolume",
    "NiftiReader",
    "OnDevice",
    "PreparedCases",
    "ProbabilityWriter",
    "StoreError",
    "VolumeDataset",
    "VolumeKeeper",
    "VolumeReader",
    "VolumeStore",
    "all_to_do",
    "cases",
    "cases_of_fold",
    "cases_to_score",
    "check_folds",
    "class_names",
    "common_root",
    "deal_folds",
    "label_map_name",
    "named_after_image",
    "notice",
    "pending",
    "prepare_case",
    "read_datalist",
    "require_volumes",
    "split_folds",
    "volumes",
]
