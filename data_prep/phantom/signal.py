"""Pictures of the phantom's anatomy: gray values, texture, and the artefacts of a scanner.

Fat is about 0.8, muscle 0.3. The three organs share their gray values with liver, spleen, kidneys and muscle, so that
gray value alone does not distinguish them; position, outline and texture do.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from data_prep.phantom.anatomy import LENGTH, Body, Organs
from data_prep.phantom.shapes import OUTSIDE, Plane, ellipse, ellipsoid

TOUCH = 1.5  # mm by which the drawn masks of touching organs overlap, as hand-drawn ones do


@dataclass(frozen=True)
class Scanner:
    """Settings of one scan: gray values of the organs (fat is about 0.8) and the flaws of the picture."""

    gray: dict[str, float]
    fat: float
    liver: float
    muscle: float
    tilt: np.ndarray  # (4,) strength of the bias field along x, y, x*y and towards the edge
    ghost: float  # share of the signal that comes again, shifted along y by the breathing
    ghost_shift: float  # of the height
    noise: float
    scale: float  # gray 1.0 in the 16-bit file


def make_scanner(rng: np.random.Generator) -> Scanner:
    """Draw the settings of one scan."""
    gray = {organ: rng.uniform(0.24, 0.38) for organ in ("large_bowel", "small_bowel", "stomach")}
    return Scanner(
        gray=gray,
        fat=rng.uniform(0.70, 0.85),
        liver=rng.uniform(0.28, 0.40),
        muscle=gray["small_bowel"] + rng.uniform(-0.05, 0.05),
        tilt=rng.uniform(-1, 1, 4) * np.array([0.3, 0.45, 0.2, 0.5]),
        ghost=rng.choice([0.0, rng.uniform(0.03, 0.07)]),
        ghost_shift=rng.uniform(0.2, 0.5),
        noise=rng.uniform(0.012, 0.03),
        scale=10 ** rng.uniform(3.3, 4.2),
    )


def draw(
    body: Body, organs: Organs, scanner: Scanner, plane: Plane, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw one slice.

    Returns:
        The picture, uint16, and a boolean mask of each organ, all (height, width). Masks of touching organs overlap
        by about ``TOUCH`` mm.
    """
    grains = {size: _grain(plane.x.shape, size, rng) for size in (1.0, 2.5)}
    signal, room = _tissues(body, scanner, plane, grains)
    depths = {
        "stomach": organs.stomach.depth(plane),
        "small_bowel": organs.small_bowel.depth(plane),
        "large_bowel": organs.large_bowel.depth(plane),
    }
    masks: dict[str, np.ndarray] = {}
    taken = np.full(plane.x.shape, OUTSIDE)  # depth inside the organs drawn so far; the first one keeps its place
    for organ, depth in depths.items():
        here = (depth > 0) & room
        seen = here & (taken <= 0)
        signal = np.where((depth > -3) & room & (taken <= 0), scanner.fat, signal)  # a seam of fat around each organ
        signal[seen] = _content(organ, scanner.gray[organ], depth, plane, grains)[seen]
        masks[organ] = here & (taken <= TOUCH)
        taken = np.maximum(taken, np.where(room, depth, OUTSIDE))
    return _scan(signal, scanner, plane, rng), masks


def _grain(shape: tuple[int, int], size: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise of mean 0 and deviation 1, its grains about ``size`` pixels wide."""
    grain = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), size, truncate=2.5)
    return grain / grain.std()


def _content(organ: str, gray: float, depth: np.ndarray, plane: Plane, grains: dict[float, np.ndarray]) -> np.ndarray:
    """Return gray values inside one organ: stool and gas, folds, or fluid with a level."""
    if organ == "large_bowel":
        inside = gray - 0.05 + 0.14 * np.tanh(1.5 * grains[2.5])
    elif organ == "small_bowel":
        filling = 0.15 * np.sin(plane.x / 13.0 + plane.z / 25.0)  # some loops hold fluid, some are empty
        inside = gray + filling + 0.07 * np.sin(depth * (2 * np.pi / 5.0)) + 0.03 * grains[1.0]
    else:
        inside = gray + 0.09 * np.tanh(plane.y / 20.0) + 0.03 * grains[2.5]
    return np.where(depth < 2.0, 0.6 * inside, inside)  # the wall is darker


def _tissues(
    body: Body, scanner: Scanner, plane: Plane, grains: dict[float, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw everything but the three organs, and the room in which those may lie."""
    outer = _inside(plane, *body.girth(plane.z))
    lean = _inside(plane, *(size - body.fat for size in body.girth(plane.z)))
    room = _inside(plane, *body.cavity(plane.z))
    signal = np.zeros(plane.x.shape, dtype=np.float32)
    signal[outer] = scanner.fat
    signal[lean] = scanner.muscle
    signal[room] = 0.92 * scanner.fat
    signal[room & (grains[2.5] > 2.0)] = 0.35  # vessels of the mesentery
    for shape, gray in _solid_organs(body, scanner, plane):
        signal[shape & room] = gray
    # Muscle is layered: thin sheets of fat run along the body wall.
    signal[lean & ~room & (grains[2.5] > 1.3)] = 0.5
    lung = room & _lung(body, plane)
    signal[lung] = 0.05
    heart = room & ellipsoid(plane, (14, -22, 80 + body.organs_at), (52, 42, 55))
    signal[heart] = 0.42
    signal[heart & ellipsoid(plane, (20, -25, 78 + body.organs_at), (24, 18, 34))] = 0.65
    back = body.height - body.fat
    for shape, gray in _bones(plane, back, scanner.muscle):
        signal[shape & lean] = gray
    signal *= 1 + 0.06 * grains[1.0] + 0.05 * grains[2.5]
    return signal, room & ~lung & (plane.y < back - 46 + 12 * (np.abs(plane.x) > 32))


def _inside(plane: Plane, width: float, height: float) -> np.ndarray:
    """Return a rounded rectangle, nearer to a torso than an ellipse is."""
    u, v = (plane.x / width) ** 2, (plane.y / height) ** 2
    return u * np.sqrt(np.sqrt(u)) + v * np.sqrt(np.sqrt(v)) < 1  # |x|^2.5 + |y|^2.5


def _solid_organs(body: Body, scanner: Scanner, plane: Plane) -> list[tuple[np.ndarray, float]]:
    """Draw distractors that no label names, back to front: the gray values are the bowels' own."""
    at, (width, height) = body.organs_at, body.cavity(220.0)
    shapes = [
        (ellipsoid(plane, (-0.45 * width, 0.02 * height, 190 + at), (0.66 * width, 0.9 * height, 72)), scanner.liver),
        (ellipsoid(plane, (0.0, -0.5 * height, 178 + at), (0.6 * width, 0.4 * height, 34)), scanner.liver),
        (ellipsoid(plane, (0.78 * width, 0.35 * height, 190 + at), (30, 0.6 * height, 52)), scanner.liver + 0.05),
        (ellipsoid(plane, (-0.42 * width, -0.35 * height, 238 + at), (14, 16, 24)), 0.75),  # gall bladder
        (ellipsoid(plane, (0, 0.55 * height, 420), (34, 26, 36)), 0.3),  # rectum
        (ellipsoid(plane, (0, -0.1 * height, 418), (40, 34, 40)), 0.85),  # bladder
    ]
    for side in (-1, 1):
        x = side * 0.50 * width
        shapes += [
            (ellipsoid(plane, (x, 0.50 * height, 258 + at - 8 * side), (25, 21, 48)), 0.36),  # kidney
            (ellipsoid(plane, (x - 6 * side, 0.50 * height, 258 + at - 8 * side), (11, 8, 26)), 0.62),
            (ellipsoid(plane, (side * 34, 0.68 * height, 350), (19, 20, 100)), scanner.muscle),  # psoas
            (ellipsoid(plane, (side * 0.85 * width, 0.35 * height, 400), (30, 55, 62)), 0.45),  # hip bone
        ]
    return shapes


def _bones(plane: Plane, back: float, muscle: float) -> list[tuple[np.ndarray, float]]:
    """Draw the spine with its canal and muscles, and the two large vessels in front of it."""
    disc = 0.28 if np.sin(plane.z * 2 * np.pi / 32) > 0.7 else 0.42  # every 32 mm a disc instead of a vertebra
    shapes = [(ellipse(plane, side * 36, back - 21, 34, 21), muscle) for side in (-1, 1)]
    shapes += [
        (ellipse(plane, 0, back - 46, 27, 22), 0.12),
        (ellipse(plane, 0, back - 46, 24, 19), disc),
        (ellipse(plane, 0, back - 22, 10, 7), 0.7),
        (ellipse(plane, 0, back - 8, 4, 9), 0.4),
        (ellipse(plane, 9, back - 76, 10, 10), 0.16),
    ]
    return [*shapes, (ellipse(plane, -18, back - 74, 11, 8), 0.3)]


def _lung(body: Body, plane: Plane) -> np.ndarray:
    """Draw air above the two domes of the diaphragm; it reaches lower at the rim, most at the back."""
    rim = ((np.abs(plane.x) - 60) / 62) ** 2 + ((plane.y + 18) / 58) ** 2
    return (plane.z < 112 + body.organs_at + 26 * np.minimum(rim, 2.6)) & (np.abs(plane.x) > 24)


def _scan(signal: np.ndarray, scanner: Scanner, plane: Plane, rng: np.random.Generator) -> np.ndarray:
    """Add blur, uneven coils, ghosts of the breathing and Rician noise; to 16 bits."""
    signal = gaussian_filter(signal, 0.6, truncate=3.0)
    x, y = plane.columns[None, :] / 170.0, plane.rows[:, None] / 120.0
    left_right, front_back, diagonal, edge = scanner.tilt
    field = 1 + left_right * x + front_back * y + diagonal * x * y + edge * (x * x + y * y - 0.5)
    reach = np.exp(-(((plane.z - LENGTH / 2) / (0.52 * LENGTH)) ** 4))  # the coils lose the ends of the stack
    signal = signal * (np.clip(field, 0.4, 1.8) * reach).astype(np.float32)
    if scanner.ghost:
        signal = signal + np.float32(scanner.ghost) * np.roll(
            signal, int(scanner.ghost_shift * signal.shape[0]), axis=0
        )
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(scanner.noise)
    return np.clip(np.hypot(signal + real, imaginary) * scanner.scale, 0, 65535).astype(np.uint16)
