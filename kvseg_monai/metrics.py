"""Overlap and surface scores of label maps on their original grid, their averages, and the files that hold them.

Shapes: label maps are (X, Y, Z) integers, 0 = background, ``i + 1`` = ``class_names[i]``; spacing is in mm per axis.
``None`` always means "not defined here", never zero: NaN and infinity are no JSON.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from monai.utils import convert_to_numpy

from kvseg_monai.errors import InputError

CLASS_METRICS = ("dice", "jaccard", "hd95_mm")
CASE_METRICS = ("dice", "jaccard", "weighted_jaccard", "hd95_mm")
CSV_COLUMNS = ("case", "patient", "class", *CASE_METRICS, "label_ml", "prediction_ml")
PROTOCOL = (
    "Each volume is scored in 3D on its original label grid; a class absent from both label and prediction is left "
    "out of that volume's scores, a class present in only one of them has Dice = Jaccard = 0 and no HD95; each class "
    "is averaged over the volumes where it is defined and the mean is taken over the classes, while the weighted "
    "Jaccard (per-class Jaccard weighted by the label's voxels) is averaged over the volumes that have any label."
)


def score_case(prediction: Any, label: Any, *, class_names: Sequence[str], spacing: Sequence[float]) -> dict[str, Any]:
    """Score one predicted label map against the reference.

    With P and L the voxels of one class in prediction and label::

        dice    = 2 |P ∩ L| / (|P| + |L|)
        jaccard = |P ∩ L| / |P ∪ L|
        hd95_mm = max(q95(d(∂P, ∂L)), q95(d(∂L, ∂P)))     in mm, over the 3D surfaces, as MONAI defines it
        weighted_jaccard = Σ_c |L_c| jaccard_c / Σ_c |L_c|

    Args:
        prediction: (X, Y, Z) array or tensor of integer labels on the label's grid.
        label: (X, Y, Z) reference on its original grid.
        class_names: foreground classes; class ``i + 1`` is ``class_names[i]``.
        spacing: voxel size in mm along X, Y, Z.

    Returns:
        ``dice``, ``jaccard``, ``hd95_mm`` (means over the defined classes), ``weighted_jaccard``, and ``classes``: per
        name ``dice``, ``jaccard``, ``hd95_mm``, ``label_ml``, ``prediction_ml``. Undefined scores are None: all scores
        of a class that is empty in both, HD95 of a class that is empty in one, weighted Jaccard without any label.

    Raises:
        InputError: shapes differ, are not 3D, the spacing is not three positive numbers, or a value is undeclared.
    """
    _check_classes(class_names)
    prediction, label = convert_to_numpy(prediction), convert_to_numpy(label)
    if prediction.shape != label.shape or label.ndim != 3:
        raise InputError(
            f"the prediction has shape {tuple(prediction.shape)} and the label {tuple(label.shape)}; both must be "
            "(X, Y, Z) on the label's original grid: undo resampling and cropping with Invertd before scoring"
        )
    _check_spacing(spacing)
    _check_values(prediction, "prediction", class_names)
    _check_values(label, "label", class_names)
    classes = {
        name: _score_class(prediction == index, label == index, spacing)
        for index, name in enumerate(class_names, start=1)
    }
    scores: dict[str, Any] = {metric: _mean(c[metric] for c in classes.values()) for metric in CLASS_METRICS}
    scores["weighted_jaccard"] = _weighted_jaccard(classes.values())
    return {**{metric: scores[metric] for metric in CASE_METRICS}, "classes": classes}


def summarise(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Average scored cases into the layout of ``metrics.json``; :data:`PROTOCOL` says what is averaged over what.

    Args:
        cases: results of :func:`score_case`, each with ``case`` and ``patient`` added; further keys are kept.
        class_names: the foreground classes that were scored.

    Returns:
        ``mean``, ``classes`` (with ``cases``: defined in so many, ``missed``: label without prediction, ``invented``:
        prediction without label), ``cases`` and ``protocol``.

    Raises:
        InputError: there is no case.
    """
    if not cases:
        raise InputError("no case was scored: the list to evaluate is empty; name at least one case with a label")
    classes = {name: _summarise_class([case["classes"][name] for case in cases]) for name in class_names}
    mean: dict[str, float | None] = {m: _mean(c[m] for c in classes.values()) for m in CLASS_METRICS}
    mean["weighted_jaccard"] = _mean(case["weighted_jaccard"] for case in cases)
    return {
        "mean": {metric: mean[metric] for metric in CASE_METRICS},
        "classes": classes,
        "cases": [dict(case) for case in cases],
        "protocol": PROTOCOL,
    }


def write_metrics(summary: Mapping[str, Any], folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``metrics.json`` and ``metrics.csv`` (a row per case and class, and a row "mean" per case).

    Undefined scores are ``null`` and an empty cell. A reader never meets half a file.

    Raises:
        InputError: the folder cannot be made because a file is in its place.
    """
    folder = Path(folder)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_atomically(folder / "metrics.json", text), write_atomically(folder / "metrics.csv", _as_csv(summary))


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write bytes, or text as UTF-8, beside ``path`` and move it there in one step; make a missing folder.

    Raises:
        InputError: ``path`` is a folder, or one of its parents is a file.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path.parent} is not a folder but a file; give another output folder") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _score_class(prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> dict[str, float | None]:
    """Scores of one class from two (X, Y, Z) masks."""
    millilitre = math.prod(float(s) for s in spacing) / 1000.0
    volumes = {"label_ml": int(label.sum()) * millilitre, "prediction_ml": int(prediction.sum()) * millilitre}
    if not (volumes["label_ml"] or volumes["prediction_ml"]):
        return {**dict.fromkeys(CLASS_METRICS), **volumes}
    if not (volumes["label_ml"] and volumes["prediction_ml"]):
        return {"dice": 0.0, "jaccard": 0.0, "hd95_mm": None, **volumes}
    box = _bounding_box(prediction | label)  # an organ fills a few per cent of the volume
    pair = [torch.from_numpy(mask[box])[None, None] for mask in (prediction, label)]  # each (1, 1, x, y, z)
    mm = [float(s) for s in spacing]
    return {
        "dice": compute_dice(*pair, include_background=True).item(),
        "jaccard": compute_iou(*pair, include_background=True).item(),
        "hd95_mm": compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=mm).item(),
        **volumes,
    }


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box around a non-empty mask."""
    axes = range(mask.ndim)
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def _weighted_jaccard(classes: Iterable[Mapping[str, Any]]) -> float | None:
    """Σ_c |L_c| jaccard_c / Σ_c |L_c|; millilitres weigh like voxels, for all classes share one grid."""
    present = [c for c in classes if c["label_ml"]]
    if not present:
        return None
    return sum(c["label_ml"] * c["jaccard"] for c in present) / sum(c["label_ml"] for c in present)


def _summarise_class(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **{metric: _mean(s[metric] for s in scores) for metric in CLASS_METRICS},
        "cases": sum(s["dice"] is not None for s in scores),
        "missed": sum(s["label_ml"] > 0 and s["prediction_ml"] == 0 for s in scores),
        "invented": sum(s["label_ml"] == 0 and s["prediction_ml"] > 0 for s in scores),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _as_csv(summary: Mapping[str, Any]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")  # None becomes an empty cell
    table.writeheader()
    for case in summary["cases"]:
        who = {"case": case["case"], "patient": case["patient"]}
        table.writerows({**scores, **who, "class": name} for name, scores in case["classes"].items())
        table.writerow({**case, "class": "mean"})
    return text.getvalue()


def _check_classes(class_names: Sequence[str]) -> None:
    if isinstance(class_names, str) or not class_names or len(set(class_names)) != len(class_names):
        raise InputError(f"class_names is {class_names!r}; give a list of distinct foreground names")


def _check_spacing(spacing: Sequence[float]) -> None:
    if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise InputError(f"the voxel spacing is {tuple(spacing)}; give three positive sizes in mm")


def _check_values(array: np.ndarray, name: str, class_names: Sequence[str]) -> None:
    highest = len(class_names)
    declared = (array >= 0) & (array <= highest)  # False for NaN, too
    if array.dtype.kind == "f":
        declared &= array == np.round(array)
    if not declared.all():
        found = [f"{value:g}" for value in np.unique(array[~declared])]
        allowed = ", ".join(f"{index} {text}" for index, text in enumerate(["background", *class_names]))
        raise InputError(
            f"the {name} holds the value(s) {', '.join(found[:8])}{', ...' if len(found) > 8 else ''} but only "
            f"{allowed} are declared; correct the {name} or declare the missing class"
        )
