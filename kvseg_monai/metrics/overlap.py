"""Scores of one class of one volume: in 3D, slice by slice, and as in the Kaggle competition on the UW-Madison data.

Shapes: masks are (X, Y, Z) booleans, slices along Z; a stack of masks is (B, ...). NaN and ``None`` mean "not defined".
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.ndimage import find_objects

from kvseg_monai.metrics.distance import hd95, normalised_hausdorff

# How empty masks count, in the words of the output.
PROTOCOLS = {
    "per_volume": (
        "Each volume is scored in 3D; a class absent from both label and prediction is left out of that volume's "
        "scores, a class present in only one of them has Dice = Jaccard = 0 and no HD95."
    ),
    "all_slices": (
        "Each slice is scored in 2D, and a volume's score is the mean over all its slices; a class absent from both "
        "label and prediction of a slice has Dice = Jaccard = 1 there, a class present in only one of them 0, and HD95 "
        "is averaged over the slices where both have it."
    ),
    "non_empty_slices": (
        "As all slices, but over the slices whose label has the class; a volume without any is left out."
    ),
}
KAGGLE = (
    "Kaggle-like, after the UW-Madison GI Tract competition, whose code is not public: 0.4 Dice + 0.6 (1 - Hausdorff). "
    "Dice is the mean over the slices where label or prediction has the class. Hausdorff is the 3D Hausdorff distance "
    "of all voxels of the class, their positions divided by the volume's size along each axis, over the square root of "
    "3. A class absent from both label and prediction of a volume is left out, a class present in only one of them has "
    "Dice 0 and Hausdorff 1. Deviations: the competition's page calls the Dice of two empty masks 0, here they are "
    "left out, as in MLE-bench's grader, which cites the competition's forum; that grader joins the classes before it "
    "takes the distance, here each has its own; and the scores of volumes are averaged, not those of all slices at "
    "once. The Kaggle score of a protocol takes that protocol's Dice, and in all slices a class absent from both label "
    "and prediction of a volume has Hausdorff 0."
)

Scores = dict[str, float | None]


def score_class(prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> dict[str, Scores]:
    """Score one class by every protocol.

    Args:
        prediction: (X, Y, Z) mask.
        label: (X, Y, Z) mask.
        spacing: voxel size in mm along X, Y, Z.

    Returns:
        Per name in :data:`PROTOCOLS` ``dice``, ``jaccard``, ``hd95_mm`` and ``kaggle``; under ``kaggle`` the
        competition's ``score`` and its parts ``dice`` and ``hausdorff`` (:data:`KAGGLE`).
    """
    hausdorff = normalised_hausdorff(prediction, label)
    box = _bounding_box(prediction | label)[:2]  # an organ fills a few per cent of a slice
    prediction, label = (np.ascontiguousarray(np.moveaxis(mask[box], 2, 0)) for mask in (prediction, label))  # (Z, ...)
    in_label, in_either = (np.any(masks, axis=(1, 2)) for masks in (label, prediction | label))  # (Z,)
    volume = score_masks(prediction[None], label[None], [spacing[2], *spacing[:2]])  # (1,) each
    slices = score_masks(prediction, label, spacing[:2])  # (Z,) each
    scores = {
        "per_volume": _average(volume, in_either.any(keepdims=True)),
        "all_slices": _average(slices, np.ones_like(in_either)),
        "non_empty_slices": _average(slices, in_label),
    }
    for protocol in scores.values():
        protocol["kaggle"] = _kaggle(protocol["dice"], hausdorff)
    dice = _average(slices, in_either)["dice"]
    return {**scores, "kaggle": {"score": _kaggle(dice, hausdorff), "dice": dice, "hausdorff": hausdorff}}


def score_masks(prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> dict[str, np.ndarray]:
    """Score B pairs of masks of two or three dimensions.

    With P and L the pixels of a pair::

        dice    = 2 |P ∩ L| / (|P| + |L|)                   1 where both are empty
        jaccard = |P ∩ L| / |P ∪ L|                         1 where both are empty
        hd95_mm = max(q95(d(∂P, ∂L)), q95(d(∂L, ∂P)))       NaN where either is empty

    HD95 is MONAI's: in mm, from every edge pixel to the nearest edge pixel of the other mask.

    Args:
        prediction: (B, ...) masks.
        label: (B, ...) masks.
        spacing: pixel size in mm along the dimensions after B.

    Returns:
        ``dice``, ``jaccard``, ``hd95_mm``, each (B,).

    Examples:
        >>> import numpy as np
        >>> label = np.zeros((1, 8, 8), bool)
        >>> label[0, 2:6, 2:6] = True
        >>> scores = score_masks(np.roll(label, 1, axis=1), label, (1.5, 1.5))
        >>> {name: round(float(values[0]), 3) for name, values in scores.items()}
        {'dice': 0.75, 'jaccard': 0.6, 'hd95_mm': 1.5}
    """
    shared, either = prediction & label, prediction | label
    both, union = (np.count_nonzero(masks, axis=tuple(range(1, masks.ndim))) for masks in (shared, either))
    total = both + union  # |P| + |L|
    dice, jaccard = (
        np.where(total == 0, 1.0, part / np.maximum(whole, 1)).astype(np.float32)  # the precision of MONAI's
        for part, whole in ((2 * both, total), (both, union))
    )
    return {"dice": dice, "jaccard": jaccard, "hd95_mm": hd95(prediction, label, spacing)}


def means(tables: Iterable[Mapping[str, float | None]]) -> Scores:
    """Return the mean of every score over the tables where it is defined."""
    tables = list(tables)
    return {name: mean(table[name] for table in tables) for name in tables[0]}


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean over the defined values; None where there is none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _average(scores: Mapping[str, np.ndarray], chosen: np.ndarray | np.bool_) -> Scores:
    """Return the mean of each (B,) score over the chosen masks where it is defined."""
    return {name: mean(float(v) for v in values[chosen & ~np.isnan(values)]) for name, values in scores.items()}


def _kaggle(dice: float | None, hausdorff: float | None) -> float | None:
    """Return 0.4 Dice + 0.6 (1 - Hausdorff); a Dice with no Hausdorff is that of a class that is rightly absent."""
    return None if dice is None else 0.4 * dice + 0.6 * (1 - (hausdorff or 0.0))


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of the smallest box around a mask; of a single voxel where it is empty."""
    return next(iter(find_objects(mask.view(np.uint8))), (slice(0, 1),) * mask.ndim)
