"""Grids of voxels in space. An affine is (4, 4), from voxel index to world mm; a shape is (X, Y, Z)."""

import itertools
from collections.abc import Sequence

import numpy as np


def spacing_of(affine: np.ndarray) -> list[float]:
    """Return the voxel's side along each axis, in mm; 0 where an axis has no length."""
    return np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0).tolist()


def corner_distance(shape: Sequence[int], first: np.ndarray, second: np.ndarray) -> float:
    """Return how far apart two affines place a corner voxel of a grid, in mm; the largest of the eight.

    Between the corners the distance is no larger, so this is the most that two grids of one shape are apart.
    """
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))])
    apart = corners @ (np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())
