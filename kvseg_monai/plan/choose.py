"""Rules by which settings follow from what was measured, each with a sentence that says why.

Lengths are in mm, those along axes in the order left-right, back-front, feet-head; canvases and voxels in pixels.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvseg_monai.plan.file import STRIDE
from kvseg_monai.plan.measure import Measured
from kvseg_monai.utils.geometry import COARSER, PLANES

MARGIN = 4  # pixels that the bundles leave around the body on each side
LEAST_SIDE = 64  # of a canvas: four tokens a side at the networks' stride
MOST_PIXELS = 256 * 256  # of a canvas: what a step of 16 slices can take on a CPU or a small card
COVERED = 0.95  # share of the volumes whose body the canvas holds; it grows around the others
SMALL_SIDE = 128  # up to here patches of 8 pixels: no more tokens than 256 pixels have in patches of 16
BATCH = 16  # slices of a step
PASSES, STEPS = 30, (1000, 10000)  # how often each slice is drawn, about, and the bounds of the steps
EPOCHS = 100  # of a training, of which every fourth is validated
LOST, SHARE = 0.5, 0.1  # of the spread that is in a few voxels, and the volumes of which it may be so
LABELS = 5  # label maps that a class must be in before it counts as being in one piece

Choice = tuple[Any, str]


def choose(measured: Sequence[Measured], *, volumes: int, class_names: Sequence[str] | None) -> dict[str, Choice]:
    """Return name -> value and reason of each setting of a plan.

    Args:
        measured: cases of training and validation.
        volumes: how many there are to train on.
        class_names: of labels 1, 2, ...; None where the data name none.
    """
    slice_axis = choose_plane(measured)
    plane = PLANES.index(slice_axis[0])
    spacing, image_size = choose_canvas(measured, plane)
    slices = sum(case.sides[plane] for case in measured) / len(measured)
    return {
        "slice_axis": slice_axis,
        "spacing": spacing,
        "image_size": image_size,
        "patch_size": choose_patch(image_size[0]),
        "normalization": choose_normalization(measured),
        "out_channels": choose_classes(measured, class_names),
        **choose_batch(volumes),
        **choose_steps(volumes, slices),
        "keep_largest": choose_whole(measured, class_names),
    }


def choose_plane(measured: Sequence[Measured]) -> Choice:
    """Return the plane in which most volumes have their slices by the voxels; axial where two have as many."""
    votes = Counter(case.plane for case in measured)
    plane = max(range(3), key=lambda axis: (votes[axis], axis))
    voxel = " x ".join(f"{np.median([case.voxel[axis] for case in measured]):.3g}" for axis in range(3))
    sizes = f"voxels are {voxel} mm from left to right, back to front and feet to head (medians)"
    if plane < 2 or len(votes) > 1:
        return PLANES[plane], f"{votes[plane]} of {len(measured)} volumes are {PLANES[plane]} by their voxels; {sizes}"
    return "axial", f"in no volume are voxels across another plane more than {COARSER} times the others; {sizes}"


def choose_canvas(measured: Sequence[Measured], plane: int) -> tuple[Choice, Choice]:
    """Return spacing and canvas: the data's own pixels, larger ones where the body would need too large a canvas."""
    across = [axis for axis in range(3) if axis != plane]
    own = float(np.median([case.voxel[axis] for case in measured for axis in across]))
    spacing, most = _rounded(own), MOST_PIXELS
    while math.prod(size := _canvas(measured, across, spacing)) > most:
        spacing = _rounded(spacing * max(1.01, 0.99 * math.sqrt(math.prod(size) / most)))
    reason = f"the median side of the pixels in {PLANES[plane]} slices is {own:.4g} mm"
    if spacing > _rounded(own):
        reason += f"; larger here, so that the canvas has at most {most} pixels, which train in reasonable time"
    body = " x ".join(f"{np.quantile([case.body[axis] for case in measured], COVERED):.0f}" for axis in across)
    covers = (
        f"{COVERED:.0%} of the bodies are up to {body} mm in the slice, with {MARGIN} pixels around; a multiple of "
        f"{STRIDE} from {LEAST_SIDE} on, and where a body is wider the canvas grows"
    )
    return ([spacing, spacing], reason), (size, covers)


def _canvas(measured: Sequence[Measured], across: Sequence[int], spacing: float) -> list[int]:
    sides = []
    for axis in across:
        needed = [min(case.body[axis] / spacing + 2 * MARGIN, _side(case, axis, spacing)) for case in measured]
        covering = math.ceil(float(np.quantile(needed, COVERED)))
        sides.append(max(LEAST_SIDE, math.ceil(covering / STRIDE) * STRIDE))
    return sides


def _side(case: Measured, axis: int, spacing: float) -> float:
    """Return how many pixels a whole slice has along an axis: the margin ends where the volume does."""
    return case.sides[axis] * case.voxel[axis] / spacing


def _rounded(length: float) -> float:
    return float(f"{length:.4g}")


def choose_patch(image_size: Sequence[int]) -> Choice:
    """Return the side of SETR's patches."""
    size = 8 if max(image_size) <= SMALL_SIDE else 16
    tokens = math.prod(side // size for side in image_size)
    return size, f"of SETR alone: {tokens} tokens on this canvas; 8 up to {SMALL_SIDE} pixels a side, else 16"


def choose_normalization(measured: Sequence[Measured]) -> Choice:
    """Return z-scores, unless a few voxels hold most of the spread of intensities: percentiles cut these off."""
    spoiled = sum(case.spread < LOST for case in measured)
    fact = f"in {spoiled} of {len(measured)} volumes 1 % of the voxels makes up more than half of the deviation"
    if spoiled > SHARE * len(measured):
        return "percentiles", f"{fact}: they are cut off"
    return "zscore", f"{fact}, so mean and deviation of the volume are a scale"


def choose_classes(measured: Sequence[Measured], class_names: Sequence[str] | None) -> Choice:
    """Return the number of the network's classes, background included."""
    if class_names is not None:
        return len(class_names) + 1, f"the datalist names {len(class_names)} classes beside the background"
    highest = max((value for case in measured for value in case.pieces), default=1)
    return highest + 1, f"{highest} is the highest label value, and the datalist names no classes"


def choose_batch(volumes: int) -> dict[str, Choice]:
    """Return volumes and slices of a step: slices of one volume are alike, so as many volumes as there can be."""
    reason = f"{BATCH} slices a step, of as many of the {volumes} volumes as there are: slices of one volume are alike"
    return {"volumes_per_batch": (BATCH, reason), "slices_per_volume": (1, "the same")}


def choose_steps(volumes: int, slices: float) -> dict[str, Choice]:
    """Return epochs and their steps: each slice about 30 times, from 1000 to 10000 steps, in 100 epochs."""
    total = round(volumes * slices)
    steps = min(max(PASSES * total / BATCH, STEPS[0]), STEPS[1])
    each = round(steps / EPOCHS)
    reason = (
        f"{each * EPOCHS} steps of {BATCH} slices: each of about {total} slices {PASSES} times, but at least "
        f"{STEPS[0]} and at most {STEPS[1]} steps"
    )
    return {
        "max_epochs": (EPOCHS, "of which every fourth is validated"),
        "steps_per_epoch": (each, reason),
    }


def choose_whole(measured: Sequence[Measured], class_names: Sequence[str] | None) -> Choice:
    """Return the label values that are in one piece in every label map that holds them."""
    counts = {
        value: [case.pieces[value] for case in measured if value in case.pieces]
        for value in sorted({value for case in measured for value in case.pieces})
    }
    whole = [value for value, pieces in counts.items() if len(pieces) >= LABELS and max(pieces) == 1]
    shown = "; ".join(
        f"{_name(value, class_names)} in one piece in {pieces.count(1)} of {len(pieces)} label maps"
        for value, pieces in counts.items()
    )
    return whole, f"{shown or 'no label map holds a label'}; a class needs all, and at least {LABELS}"


def _name(value: int, class_names: Sequence[str] | None) -> str:
    named = class_names is not None and value <= len(class_names)
    return f"{value} {class_names[value - 1]}" if named and class_names else str(value)
