"""Scores of one predicted label map against the reference, on its original grid.

Shapes: label maps are (X, Y, Z) integers, 0 = background, ``i + 1`` = ``class_names[i]``; spacing is in mm per axis.
``None`` always means "not defined here", never zero: NaN and infinity are no JSON.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.utils import convert_to_numpy

from kvseg_monai.errors import InputError
from kvseg_monai.metrics.overlap import PROTOCOLS, means, score_class

CLASS_METRICS = ("dice", "jaccard", "hd95_mm")
CASE_METRICS = ("dice", "jaccard", "weighted_jaccard", "hd95_mm")


def score_case(
    prediction: Any, label: Any, *, class_names: Sequence[str], spacing: Sequence[float], slice_axis: int = 2
) -> dict[str, Any]:
    """Score one predicted label map: per volume, and slice by slice; and by the Kaggle competition's rule.

    :data:`kvseg_monai.metrics.overlap.PROTOCOLS` says how the protocols count empty masks,
    :func:`kvseg_monai.metrics.overlap.score_masks` and :func:`kvseg_monai.metrics.distance.normalised_hausdorff` have
    the formulas. With L_c the voxels of class c in the whole label, each protocol has::

        weighted_jaccard = Σ_c |L_c| jaccard_c / Σ_c |L_c|

    Args:
        prediction: (X, Y, Z) array or tensor of integer labels on the label's grid.
        label: (X, Y, Z) reference on its original grid.
        class_names: foreground classes; class ``i + 1`` is ``class_names[i]``.
        spacing: voxel size in mm along X, Y, Z.
        slice_axis: the axis across which slices lie: 0, 1 or 2.

    Returns:
        ``dice``, ``jaccard``, ``hd95_mm`` (means over the defined classes), ``weighted_jaccard``, and ``classes``: per
        name ``dice``, ``jaccard``, ``hd95_mm``, ``label_ml``, ``prediction_ml``, all per volume. Beside them
        ``protocols``: per protocol the same scores and ``kaggle``, over all and in its own ``classes``; and ``kaggle``:
        ``score``, ``dice`` and ``hausdorff``, likewise. Undefined scores are None.

    Raises:
        InputError: shapes differ, are not 3D, the spacing is not three positive numbers, or a value is undeclared.

    Examples:
        >>> import numpy as np
        >>> label = np.zeros((8, 8, 3), np.uint8)
        >>> label[2:6, 2:6] = 1
        >>> prediction = np.roll(label, 1, axis=0)  # one voxel aside
        >>> scores = score_case(prediction, label, class_names=["liver"], spacing=(1.5, 1.5, 4))
        >>> scores["dice"], scores["classes"]["liver"]["hd95_mm"], round(scores["classes"]["liver"]["label_ml"], 3)
        (0.75, 1.5, 0.432)
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
    order = [*(axis for axis in range(3) if axis != slice_axis), slice_axis]
    prediction, label, spacing = prediction.transpose(order), label.transpose(order), [spacing[axis] for axis in order]
    masks = {name: (prediction == index, label == index) for index, name in enumerate(class_names, start=1)}
    millilitre = math.prod(float(size) for size in spacing) / 1000.0
    volumes = {
        name: {"label_ml": int(mask.sum()) * millilitre, "prediction_ml": int(predicted.sum()) * millilitre}
        for name, (predicted, mask) in masks.items()
    }
    return _arrange({name: score_class(*pair, spacing) for name, pair in masks.items()}, volumes)


def _arrange(scores: Mapping[str, Any], volumes: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Turn class -> protocol into protocol -> class, each protocol led by its scores over all classes."""
    tables = {key: {name: scores[name][key] for name in scores} for key in (*PROTOCOLS, "kaggle")}
    kaggle = {**means(tables["kaggle"].values()), "classes": tables.pop("kaggle")}
    protocols: dict[str, dict[str, Any]] = {
        key: {**means(table.values()), "weighted_jaccard": _weighted_jaccard(table, volumes), "classes": table}
        for key, table in tables.items()
    }
    whole = protocols["per_volume"]
    classes = {
        name: {**{metric: whole["classes"][name][metric] for metric in CLASS_METRICS}, **volumes[name]}
        for name in scores
    }
    over_all = {metric: whole[metric] for metric in CASE_METRICS}
    return {**over_all, "classes": classes, "protocols": protocols, "kaggle": kaggle}


def _weighted_jaccard(
    table: Mapping[str, Mapping[str, Any]], volumes: Mapping[str, Mapping[str, float]]
) -> float | None:
    """Return Σ_c |L_c| jaccard_c / Σ_c |L_c|; millilitres weigh like voxels, for all classes share one grid."""
    weights = {name: volumes[name]["label_ml"] for name in table if volumes[name]["label_ml"]}
    if not weights:
        return None
    return sum(weight * table[name]["jaccard"] for name, weight in weights.items()) / sum(weights.values())


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
