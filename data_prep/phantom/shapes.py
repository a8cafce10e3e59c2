"""Shapes of the phantom: tubes and ellipsoids, cut by one axial slice.

Positions are in mm from the middle of the body: x to the patient's left (image right), y to the back (image bottom),
z from the head to the feet. Arrays of a slice have the shape (height, width).
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

OUTSIDE = np.float32(-1e3)  # depth of a pixel that no tube is near


@dataclass(frozen=True)
class Plane:
    """One slice: where its pixels lie in the body. ``x`` and ``y`` are bent a little, so that nothing is a circle."""

    x: np.ndarray  # (height, width) mm
    y: np.ndarray  # (height, width) mm
    z: float  # mm
    columns: np.ndarray  # (width,) mm, not bent
    rows: np.ndarray  # (height,) mm, not bent
    bend: float  # mm, the most that x or y differ from columns and rows


@dataclass(frozen=True)
class Tube:
    """A chain of spheres: ``centres`` (n, 3) in mm and ``radii`` (n,) in mm."""

    centres: np.ndarray
    radii: np.ndarray

    def depth(self, plane: Plane, *, rim: float = 4.0) -> np.ndarray:
        """Return the depth in mm under the surface of the tube, (height, width); negative outside, down to ``-rim``."""
        depth = np.full(plane.x.shape, OUTSIDE, dtype=np.float32)
        squares = self.radii**2 - (self.centres[:, 2] - plane.z) ** 2
        for index in np.flatnonzero(squares > 0):
            (x, y, _), radius = self.centres[index], float(np.sqrt(squares[index]))
            reach = radius + rim + plane.bend
            rows = slice(*np.searchsorted(plane.rows, (y - reach, y + reach)))
            columns = slice(*np.searchsorted(plane.columns, (x - reach, x + reach)))
            inside = radius - np.hypot(plane.x[rows, columns] - np.float32(x), plane.y[rows, columns] - np.float32(y))
            np.maximum(depth[rows, columns], inside, out=depth[rows, columns])
        return depth


def bend_plane(columns: np.ndarray, rows: np.ndarray, z: float, *, waves: np.ndarray) -> Plane:
    """Return the plane at ``z`` whose pixels are shifted by slow waves.

    Args:
        columns: (width,) mm.
        rows: (height,) mm.
        z: mm.
        waves: (2, n, 5): for x and y, n waves of amplitude (mm), three wave numbers (1/mm) and a phase.
    """
    shifts = []
    for axis in waves:
        shift = np.zeros((rows.size, columns.size), dtype=np.float32)
        for size, kx, ky, kz, phase in axis:
            # sin(a + b) as a sum of products: two vectors instead of a whole image of sines.
            a, b = kx * columns + kz * z + phase, ky * rows
            wave = np.outer(np.cos(b), np.sin(a)) + np.outer(np.sin(b), np.cos(a))
            shift += (size * wave).astype(np.float32)
        shifts.append(shift)
    return Plane(
        x=columns[None, :].astype(np.float32) + shifts[0],
        y=rows[:, None].astype(np.float32) + shifts[1],
        z=z,
        columns=columns,
        rows=rows,
        bend=float(np.abs(waves[:, :, 0]).sum(axis=1).max()),
    )


def ellipsoid(plane: Plane, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Return a Boolean cut through an ellipsoid, (height, width)."""
    left = 1.0 - ((plane.z - centre[2]) / radii[2]) ** 2
    if left <= 0:
        return np.zeros(plane.x.shape, dtype=bool)
    return ((plane.x - centre[0]) / radii[0]) ** 2 + ((plane.y - centre[1]) / radii[1]) ** 2 < left


def ellipse(plane: Plane, x: float, y: float, width: float, height: float) -> np.ndarray:
    """Return a Boolean ellipse with half axes ``width`` and ``height``, the same in every slice."""
    return ((plane.x - x) / width) ** 2 + ((plane.y - y) / height) ** 2 < 1


def smooth_tube(points: np.ndarray, radii: np.ndarray, *, samples: int) -> Tube:
    """Return the tube through ``points`` (n, 3) with ``radii`` (n,), as a smooth curve of ``samples`` spheres."""
    steps = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    along = np.linspace(0, steps[-1], samples)
    return Tube(CubicSpline(steps, points)(along), np.interp(along, steps, radii))
