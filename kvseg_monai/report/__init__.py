"""Evaluations and studies as HTML pages that need no network and no second file.

``python -m kvseg_monai.report --evaluation DIR --target report.html`` makes the page of an evaluation;
``python -m kvseg_monai.study report STUDY.yaml`` that of a study, beside its tables.
"""

from kvseg_monai.metrics.summary import read_metrics
from kvseg_monai.report.evaluation import build_report
from kvseg_monai.report.readers import find_prediction
from kvseg_monai.utils.tensorboard import read_scalars

__all__ = ["build_report", "find_prediction", "read_metrics", "read_scalars"]
