"""Geometry of slices: their order, their spacing, and the affine of their stack.

DICOM's world is LPS (x to the patient's left, y to the back, z to the head), NIfTI's is RAS; both in mm. A slice has
the position of its first pixel and two unit vectors: ``row``, the way along a row (growing column), and ``column``.
Their cross product is the normal, along which slices are ordered.
"""

from collections.abc import Sequence

import numpy as np

from kvseg_monai.errors import InputError

TOLERANCE = 0.1  # of a voxel: how far a slice may lie from where the affine puts it
MAX_SHEAR = 0.01  # sine of the angle between the normal and the way from slice to slice: 0.6 degrees
SAME_PLACE_MM = 0.02  # slices nearer than this along the normal lie at the same place
GAP = 1.5  # a step above this many usual ones means that slices are missing


def axes(orientation: Sequence[float]) -> np.ndarray:
    """Return the rows ``row``, ``column`` and normal, made exactly orthonormal.

    Raises:
        InputError: when the two directions are no unit vectors at a right angle, by more than 1 %.
    """
    row, column = np.reshape(np.asarray(orientation, dtype=float), (2, 3))
    lengths = np.linalg.norm([row, column], axis=1)
    if not (np.abs(lengths - 1).max() < 0.01 and abs(row @ column) < 0.01):
        raise InputError("ImageOrientationPatient holds no two unit vectors at a right angle; export the series again")
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)])


def along_normal(positions: np.ndarray, orientation: Sequence[float]) -> np.ndarray:
    """Return the position of each slice along the normal in mm. ``positions`` is (slices, 3)."""
    return positions @ axes(orientation)[2]


def slice_step(positions: np.ndarray, orientation: Sequence[float], spacing: Sequence[float]) -> np.ndarray:
    """Return the step from one slice to the next, LPS mm, of slices in order.

    A missing slice is refused and not bridged: a gap would shift every organ behind it. Unequal spacing is refused
    because an affine cannot express it, and resampling would invent slices.

    Args:
        positions: (slices, 3), at least two.
        orientation: six cosines, as in ImageOrientationPatient.
        spacing: mm between rows and between columns.

    Raises:
        InputError: when slices are missing, unequally spaced or sheared.
    """
    frame = axes(orientation)
    places = positions @ frame[2]
    steps = np.diff(places)
    usual = _usual(steps)
    wide = int(np.argmax(steps))
    if steps[wide] > GAP * usual:
        raise InputError(
            f"slices are missing: slice {wide + 1} and the next are {steps[wide]:.2f} mm apart, the others "
            f"{usual:.2f} mm; get the whole series, or let `python -m data_prep.dicom --split-gaps` make a volume of "
            "each part"
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    rest = np.abs((positions - positions[0] - np.outer(np.arange(len(positions)), step)) @ frame.T)
    if rest[:, 2].max() > TOLERANCE * usual:
        raise InputError(
            f"slices are unequally spaced ({steps.min():.2f} to {steps.max():.2f} mm); each may lie at most "
            f"{TOLERANCE:.0%} of the spacing from its even place: resample the series at its source"
        )
    if (rest[:, :2] > TOLERANCE * np.array([spacing[1], spacing[0]])).any():
        raise InputError("slices are not in line, each has an offset of its own in the plane; export the series again")
    if np.linalg.norm(step - (step @ frame[2]) * frame[2]) > MAX_SHEAR * np.linalg.norm(step):
        raise InputError(
            "slices are sheared, their stack is not at a right angle to them (a tilted gantry); resample the series"
        )
    return step


def affine_of(
    first: Sequence[float], orientation: Sequence[float], spacing: Sequence[float], step: np.ndarray
) -> np.ndarray:
    """Return the (4, 4) affine from voxel index (column x, row y, slice z) to RAS mm.

    Args:
        first: LPS position of the first pixel of the first slice.
        orientation: six cosines, as in ImageOrientationPatient.
        spacing: mm between rows and between columns, DICOM's order.
        step: way from slice to slice, LPS mm.
    """
    row, column, _ = axes(orientation)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * spacing[1], column * spacing[0], step], axis=1)
    affine[:3, 3] = first
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def parts_between_gaps(places: np.ndarray) -> list[np.ndarray]:
    """Return the indices of the slices of each part, split at every gap of the ordered ``places``."""
    steps = np.diff(places)
    cuts = np.flatnonzero(steps > GAP * _usual(steps)) + 1 if len(steps) else np.array([], int)
    return np.split(np.arange(len(places)), cuts)


def _usual(steps: np.ndarray) -> float:
    """Return the lower median, so that of two steps the smaller one counts as the usual."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])
