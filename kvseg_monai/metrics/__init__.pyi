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
    "read_metrics",
    "score_case",
    "score_masks",
    "summarise",
    "write_metrics",
]
