"""The folds of a cross-validation joined: each case scored by the weights that never saw it, in one evaluation.

``metrics.json`` and ``metrics.csv`` are those of an evaluation, with ``fold`` in each case, and beside the usual tables
``folds`` and ``calibration``; the latter is also a file of its own, ``calibration.json``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.sample_logits import SAMPLE, read_sample
from kvseg_monai.handlers.score_volumes import number_duplicates
from kvseg_monai.metrics.calibration import calibrate_out_of_fold
from kvseg_monai.metrics.case import CASE_METRICS
from kvseg_monai.metrics.summary import FILES, read_metrics, summarise, write_metrics
from kvseg_monai.study.statistics import interval
from kvseg_monai.utils.files import write_text

CALIBRATION = "calibration.json"
WRITTEN = (*FILES, CALIBRATION)
PROTOCOL = (
    "Each case is scored by the weights of the fold that held its patient out. The intervals are over patients, a "
    "patient's score being the mean over its cases: 95 % percentile intervals of 9999 bootstrap samples of patients. "
    "They hold for other patients, not for another training. Where a training was validated more than "
    "once, its weights are those of the epoch that did best on the held-out cases, so the scores are a little too good."
)


def join_folds(folders: Sequence[Path], target: Path) -> dict[str, Any]:
    """Join the evaluations of all folds; write ``metrics.json``, ``metrics.csv`` and ``calibration.json``.

    Args:
        folders: of the evaluations, fold 0 first, each with ``metrics.json`` and ``calibration.npz``.
        target: the folder to write into.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        InputError: an evaluation lacks a file, or has other classes than the first.
    """
    found = [read_metrics(folder / FILES[0]) for folder in folders]
    names = list(found[0]["classes"])
    for folder, metrics in zip(folders, found, strict=True):
        if list(metrics["classes"]) != names:
            raise InputError(
                f"{folder / FILES[0]} scores {', '.join(metrics['classes'])}, the first fold {', '.join(names)}; score "
                "all folds of one dataset"
            )
    cases = [{**case, "fold": fold} for fold, metrics in enumerate(found) for case in metrics["cases"]]
    summary = summarise(number_duplicates(cases), names)
    summary |= _of_the_run(found)
    summary["folds"] = {
        "folds": [_scores_of(fold, metrics) for fold, metrics in enumerate(found)],
        "intervals": {metric: patient_interval(cases, metric) for metric in CASE_METRICS},
        "protocol": PROTOCOL,
    }
    summary["calibration"] = calibrate_out_of_fold(
        {k: read_sample(folder / SAMPLE) for k, folder in enumerate(folders)}
    )
    write_text(target / CALIBRATION, json.dumps(summary["calibration"], indent=1) + "\n")
    write_metrics(summary, target)
    return summary


def patient_interval(cases: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Return ``mean``, ``low`` and ``high`` over patients of a score of whole cases; None where it is not defined."""
    scores: dict[str, list[float]] = {}
    for case in cases:
        if case[metric] is not None:
            scores.setdefault(str(case["patient"]), []).append(case[metric])
    per_patient = np.array([[float(np.mean(of_one)) for of_one in scores.values()]])
    low, high = interval(per_patient)
    mean = float(per_patient.mean()) if scores else math.nan
    values = {"mean": mean, "low": low, "high": high}
    return {"patients": len(scores), **{name: v if math.isfinite(v) else None for name, v in values.items()}}


def _scores_of(fold: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    cases = metrics["cases"]
    patients = len({str(case["patient"]) for case in cases})
    return {"fold": fold, "cases": len(cases), "patients": patients, "mean": metrics["mean"]}


def _of_the_run(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what an evaluation says beside its scores: of the first fold, with the time and the refused of all."""
    first = found[0]
    manifest = dict(first.get("manifest", {}))
    seconds = [metrics.get("manifest", {}).get("seconds", 0.0) for metrics in found]
    own = ("fold", "section", "ckpt_path")
    parts = {
        name: {k: v for k, v in manifest[name].items() if k not in own}
        for name in ("overrides", "settings")
        if name in manifest
    }
    kept = {"manifest": {**manifest, **parts, "seconds": round(sum(seconds), 3)}} if manifest else {}
    notice = {"notice": first["notice"]} if first.get("notice") else {}
    refused = [sentence for metrics in found for sentence in metrics.get("refused", [])]
    return {**kept, **notice, **({"refused": refused} if refused else {})}
