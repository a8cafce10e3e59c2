"""Grids of voxels in space. An affine is (4, 4), from voxel index to world mm; a shape is (X, Y, Z)."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from kvseg_monai.errors import InputError

SPACING_MM = (0.05, 50.0)  # from high-field microscopy to the thickest slabs of a localizer
PLANES = ("sagittal", "coronal", "axial")  # by the patient's axis that their slices lie across: left-right, ...
SLICE_AXES = ("auto", *PLANES)
COARSER = 1.5  # times either other side of a voxel: where slices lie by the voxel's sizes


def sides_of(shape: Sequence[int], affine: np.ndarray) -> list[int]:
    """Return the number of voxels along the patient's axes: left to right, back to front, feet to head."""
    return [shape[axis] for axis in array_axes(affine)]


def array_axes(affine: np.ndarray) -> list[int]:
    """Return the array axis that runs most nearly along each of the patient's axes."""
    along = io_orientation(np.asarray(affine, dtype=float))[:, 0].tolist()
    return [along.index(axis) for axis in range(3)]


def plane_of(shape: Sequence[int], affine: np.ndarray, slice_axis: str = "auto") -> int:
    """Return across which of the patient's axes a volume is cut into slices: 0 sagittal, 1 coronal, 2 axial.

    ``auto`` goes by the voxels: one slice is a slice in its own plane, and slices lie across the axis whose voxels are
    more than 1.5 times as long as along either other one. Where there is no such axis, they are axial. An oblique
    volume goes by the nearest axes.

    Args:
        shape: (X, Y, Z).
        affine: (4, 4), voxel index to world mm.
        slice_axis: one of :data:`SLICE_AXES`.

    Raises:
        InputError: it is none of them.
    """
    check_slice_axis(slice_axis)
    if slice_axis != "auto":
        return PLANES.index(slice_axis)
    axes, spacing = array_axes(affine), spacing_of(affine)
    single = [axis for axis in range(3) if shape[axes[axis]] == 1]
    if len(single) == 1:
        return single[0]
    sizes = [spacing[axis] for axis in axes]
    longest = int(np.argmax(sizes))
    others = max(size for axis, size in enumerate(sizes) if axis != longest)
    return longest if sizes[longest] > (COARSER + 1e-3) * others else 2  # a header rounds its numbers


def check_slice_axis(slice_axis: str) -> None:
    """Refuse what is none of :data:`SLICE_AXES`.

    Raises:
        InputError: naming the option.
    """
    if slice_axis not in SLICE_AXES:
        raise InputError(f"--slice_axis is {slice_axis!r}; it must be one of {', '.join(SLICE_AXES)}")


def spacing_of(affine: np.ndarray) -> list[float]:
    """Return the voxel's side along each axis, in mm; 0 where an axis has no length."""
    return np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0).tolist()


def radiological_affine(spacing: tuple[float, float, float], *, towards_feet: bool) -> np.ndarray:
    """Return the affine of axial slices as radiologists display them, in RAS mm.

    Columns run to the patient's left and rows to the back, both against the world axes. The first voxel is the origin,
    because slice images do not say where in the scanner they were taken.

    Args:
        spacing: mm between columns, rows and slices.
        towards_feet: whether the slice index grows from the head to the feet.
    """
    x, y, z = spacing
    return np.diag([-x, -y, -z if towards_feet else z, 1.0])


def spans_volume(affine: np.ndarray) -> bool:
    """Return whether an affine's axes point three ways: voxels that are nearly flat have no position in space."""
    return abs(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3])) >= 0.01 * math.prod(spacing_of(affine))


def corner_distance(shape: Sequence[int], first: np.ndarray, second: np.ndarray) -> float:
    """Return how far apart two affines place a corner voxel of a grid, in mm; the largest of the eight.

    Between the corners the distance is no larger, so this is the most that two grids of one shape are apart.
    """
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))])
    offsets = corners @ (np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).T
    return float(np.linalg.norm(offsets[:, :3], axis=1).max())


def onto_grid(
    voxels: np.ndarray, affine: np.ndarray, *, shape: Sequence[int], target: np.ndarray, tolerance: float = 0.1
) -> np.ndarray | None:
    """Bring voxels onto a grid that has their own voxel centres, its axes in another order or direction.

    No value changes: axes are permuted and flipped.

    Args:
        voxels: (X, Y, Z).
        affine: where they are.
        shape: of the grid.
        target: affine of the grid.
        tolerance: how far a voxel centre may be beside one of the grid's, in shares of the grid's smallest voxel side.

    Returns:
        The voxels in the grid's order, a view; None where they lie elsewhere, or their number differs.
    """
    turn = np.linalg.pinv(np.asarray(target, dtype=float)[:3, :3]) @ np.asarray(affine, dtype=float)[:3, :3]
    turn /= np.abs(turn).max(axis=0)  # a single slice has a thickness, and no second centre to know it by
    onto = np.abs(turn).argmax(axis=0)  # the grid's axis along which each of ours runs
    if voxels.ndim != 3 or sorted(onto) != [0, 1, 2]:
        return None
    orientation = np.stack([onto, np.sign(turn[onto, range(3)])], axis=1)
    turned = apply_orientation(voxels, orientation)
    if turned.shape != tuple(shape):
        return None
    distance = corner_distance(shape, affine @ inv_ornt_aff(orientation, voxels.shape), target)
    return turned if distance <= tolerance * min(spacing_of(target)) else None
