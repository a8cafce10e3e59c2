"""The people of the phantom: a body per patient, organs per scan, and what each slice of them holds.

Axes and units as in :mod:`data_prep.phantom.shapes`; z runs over ``LENGTH`` mm from the chest to the pelvis. The organs
lie in a bit less than half of it, so that about half of the slices hold none, as in the data that the phantom imitates.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.phantom.shapes import Plane, Tube, bend_plane, smooth_tube

LENGTH = 430.0  # mm; 144 slices of 3 mm


@dataclass(frozen=True)
class Body:
    """Anatomy of a patient that is the same in all scans. All in mm but for ``waves``."""

    width: float  # half, at the navel
    height: float  # half, front to back
    fat: float  # under the skin
    muscle: float
    organs_at: float  # shift of the inner organs along z
    waves: np.ndarray  # see phantom_shapes.bend_plane

    def girth(self, z: float) -> tuple[float, float]:
        """Return half width and half height at ``z``: a waist between chest and hips."""
        waist = 1.0 - 0.05 * np.cos(2 * np.pi * (z - 40.0) / LENGTH)
        return self.width * waist, self.height * (2.0 - waist)

    def cavity(self, z: float) -> tuple[float, float]:
        """Return half width and half height inside fat and muscle."""
        width, height = self.girth(z)
        return width - self.fat - self.muscle, height - self.fat - self.muscle


@dataclass(frozen=True)
class Organs:
    """Anatomy of a scan that changes from one day to the next: the three hollow organs."""

    large_bowel: Tube
    small_bowel: Tube
    stomach: Tube


def make_body(rng: np.random.Generator) -> Body:
    """Draw a patient."""
    waves = np.empty((2, 3, 5))
    waves[..., 0] = rng.uniform(1.0, 3.0, (2, 3))
    waves[..., 1:4] = 2 * np.pi / rng.uniform(110.0, 260.0, (2, 3, 3)) * rng.choice([-1, 1], (2, 3, 3))
    waves[..., 4] = rng.uniform(0, 2 * np.pi, (2, 3))
    return Body(
        width=rng.uniform(138, 154),
        height=rng.uniform(96, 112),
        fat=rng.uniform(8, 18),
        muscle=rng.uniform(12, 16),
        organs_at=rng.uniform(-12, 12),
        waves=waves,
    )


def make_organs(body: Body, rng: np.random.Generator) -> Organs:
    """Draw the hollow organs of one day."""
    return Organs(_large_bowel(body, rng), _small_bowel(body, rng), _stomach(body, rng))


def plane_at(body: Body, z: float, *, width: int, height: int, spacing: float) -> Plane:
    """Return the slice at ``z`` as a picture of ``width`` x ``height`` pixels with the body in its middle."""
    columns = (np.arange(width) - (width - 1) / 2) * spacing
    rows = (np.arange(height) - (height - 1) / 2) * spacing
    return bend_plane(columns, rows, z, waves=body.waves)


def _jitter(points: list[tuple[float, float, float]], rng: np.random.Generator, size: float) -> np.ndarray:
    return np.array(points) + rng.uniform(-size, size, (len(points), 3))


def _large_bowel(body: Body, rng: np.random.Generator) -> Tube:
    """Return a tube as a frame: up on the patient's right, across behind the belly wall, down on the left."""
    width, height = body.cavity(260.0)
    radius, at = rng.uniform(17, 23), body.organs_at
    side, front = width - radius - 5, -(height - radius - 5)
    points = [
        (-side, 18, 335 + at),
        (-side, 12, 290 + at),
        (-side, 2, 248 + at),
        (-0.62 * side, 0.8 * front, 236 + at),
        (0, front, 250 + at),
        (0.62 * side, 0.8 * front, 232 + at),
        (side, 8, 208 + at),
        (side, 20, 270 + at),
        (side, 18, 335 + at),
    ]
    tube = smooth_tube(_jitter(points, rng, 5.0), np.full(len(points), radius), samples=150)
    # The pouches of the colon: its width swells and shrinks along the way.
    along = np.linspace(0, 2 * np.pi * rng.uniform(16, 22), 150) + rng.uniform(0, 6)
    return Tube(tube.centres, tube.radii * (1 + 0.13 * np.sin(along)))


def _small_bowel(body: Body, rng: np.random.Generator) -> Tube:
    """Return a tube in loops that wind down through the middle, inside the frame of the large bowel."""
    width, height = body.cavity(300.0)
    radius = rng.uniform(10.5, 12.5)
    side = width - 46 - radius
    front, back = -(height - radius - 6), height - 62 - radius
    along = np.linspace(0, 1, 260)
    turns = 2 * np.pi * (rng.uniform(5.0, 6.5) * along + rng.uniform())
    sways = 2 * np.pi * (rng.uniform(7.0, 9.0) * along + rng.uniform())
    x = side * (0.85 * np.sin(turns) + 0.15 * np.sin(2.3 * sways))
    y = (front + back) / 2 + (back - front) / 2 * np.sin(sways)
    z = 266 + body.organs_at + 70 * along + 6 * np.sin(0.7 * sways)
    return Tube(np.stack([x, y, z], axis=1), radius * (1 + 0.12 * np.sin(7 * turns)))


def _stomach(body: Body, rng: np.random.Generator) -> Tube:
    """Return a tube as a bag under the left dome of the diaphragm that narrows towards the middle."""
    width, height = body.cavity(200.0)
    full, at = rng.uniform(0.85, 1.15), body.organs_at
    points = [
        (0.50 * width, 0.15 * height, 180 + at),
        (0.50 * width, -0.10 * height, 198 + at),
        (0.38 * width, -0.40 * height, 214 + at),
        (0.08 * width, -0.48 * height, 226 + at),
        (-0.18 * width, -0.36 * height, 230 + at),
    ]
    radii = full * np.array([27.0, 31.0, 27.0, 20.0, 13.0])
    return smooth_tube(_jitter(points, rng, 5.0), radii, samples=40)
