"""Distances of masks: the 95th percentile of those of their edges, and the Kaggle competition's Hausdorff distance.

Shapes: a stack of masks is (B, ...) booleans. NaN and ``None`` mean "not defined".
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import KDTree

ROUGHLY = 0.5  # by what share a distance of the first, fast search may be too large


def hd95(prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return MONAI's HD95 of B pairs of masks: from every edge pixel to the nearest edge pixel of the other mask.

    An edge pixel is one with a face neighbour outside of the mask; beyond the border of the array all is outside.

    Args:
        prediction: (B, ...) masks of two or three dimensions.
        label: (B, ...) masks.
        spacing: pixel size in mm along the dimensions after B.

    Returns:
        (B,) float64 in mm, NaN where either mask is empty.
    """
    within = tuple(range(1, label.ndim))
    filled = np.any(prediction, axis=within) & np.any(label, axis=within)
    found = np.full(len(filled), np.nan)
    if filled.any():
        predicted, true = (_edges(masks[filled]) for masks in (prediction, label))
        # All pairs are searched at once, so far from one another that the nearest pixel is always of the same pair.
        mm = [2 * math.hypot(*np.multiply(label.shape[1:], spacing)), *spacing]
        found[filled] = np.maximum(_quantiles(predicted, true, mm), _quantiles(true, predicted, mm))
    return found


def normalised_hausdorff(prediction: np.ndarray, label: np.ndarray) -> float | None:
    """Return the Hausdorff distance of two (X, Y, Z) masks, from 0 (the same voxels) to 1 (opposite corners).

    With all voxel positions divided by the size, u(p) = (x / X, y / Y, z / Z)::

        max(h(P, L), h(L, P)) / sqrt(3),    h(A, B) = max over a in A of min over b in B of |u(a) - u(b)|

    Every voxel of a mask takes part, not its surface alone, as in SciPy's ``directed_hausdorff``, which the competition
    links to. Two empty masks have none; one empty mask is 1 away.
    """
    if not (prediction.any() and label.any()):
        return 1.0 if prediction.any() or label.any() else None
    step = [1 / (size * math.sqrt(3)) for size in label.shape]
    return max(_furthest(prediction, label, step), _furthest(label, prediction, step))


def _edges(masks: np.ndarray) -> np.ndarray:
    """Return the indices of the edge pixels of the (B, ...) masks: (N, dimensions), those of B in ascending order."""
    margin = [0] + [1] * (masks.ndim - 1)
    padded = np.pad(masks, [(size, size) for size in margin])
    pixels = np.flatnonzero(padded)  # far fewer than an erosion would visit
    steps = np.cumprod([1, *padded.shape[:1:-1]])  # to the next pixel along each axis but B
    inside = np.logical_and.reduce([padded.flat[pixels + step] for step in (*steps, *-steps)])
    return np.stack(np.unravel_index(pixels[~inside], padded.shape), axis=1) - margin


def _quantiles(points: np.ndarray, target: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the 95th percentile of the distances to the target from the (N, dimensions) points of each B: (B,)."""
    distances = torch.from_numpy(_tree(target, spacing).query(points * spacing)[0])
    distances = distances.float()  # as MONAI: a percentile's interpolation shows the precision
    return np.array([part.quantile(0.95).item() for part in distances.split(np.bincount(points[:, 0]).tolist())])


def _furthest(points: np.ndarray, target: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the largest distance from a voxel of the mask ``points`` to the nearest one of ``target``."""
    outside = np.flatnonzero(points & ~target)  # the others are at distance 0
    if not len(outside):
        return 0.0
    positions = np.stack(np.unravel_index(outside, points.shape), axis=1) * spacing
    tree = _tree(_edges(target[None])[:, 1:], spacing)  # from outside of a mask its nearest voxel is on its edge
    rough = tree.query(positions, eps=ROUGHLY)[0]
    candidates = positions[rough >= rough.max() / (1 + ROUGHLY)]  # the others are nearer than the furthest of these
    return float(np.float32(tree.query(candidates)[0].max()))  # single precision, as HD95


def _tree(points: np.ndarray, spacing: Sequence[float]) -> KDTree:
    return KDTree(points * spacing, leafsize=32, balanced_tree=False, compact_nodes=False)  # fast for points of a grid
