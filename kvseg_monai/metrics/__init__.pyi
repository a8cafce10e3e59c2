from .calibration import calibrate_out_of_fold as calibrate_out_of_fold
from .calibration import expected_calibration_error as expected_calibration_error
from .calibration import fit_temperature as fit_temperature
from .case import CASE_METRICS as CASE_METRICS
from .case import CLASS_METRICS as CLASS_METRICS
from .case import score_case as score_case
from .overlap import PROTOCOLS as PROTOCOLS
from .overlap import score_masks as score_masks
from .summary import read_metrics as read_metrics
from .summary import summarise as summarise
from .summary import write_metrics as write_metrics

__all__ = [
    "CASE_METRICS",
    "CLASS_METRICS",
    "PROTOCOLS",
    "calibrate_out_of_fold",
    "expected_calibration_error",
    "fit_temperature",
    "read_metrics",
    "score_case",
    "score_masks",
    "summarise",
    "write_metrics",
]
