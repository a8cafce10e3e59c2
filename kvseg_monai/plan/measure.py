"""Measurements of a data set's cases: voxels, the body's size, intensities, and the pieces of each label.

Shapes: a volume as loaded is (I, J, K). What is measured is given along the patient's axes: left to right, back to
front, feet to head.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from monai.transforms import Compose
from scipy import ndimage
from tqdm.auto import tqdm

from kvseg_monai.data.dataset import Case
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.transforms import CheckLabelsd, CheckVolumed, LoadVolumed, body_mask
from kvseg_monai.utils.geometry import array_axes, plane_of, spacing_of
from kvseg_monai.utils.tensors import plain

logger = logging.getLogger(__name__)

MOST = 200  # cases that are measured; of more, so many at equal distances
TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a corner are of one piece
SAMPLE = 7  # every so many voxels count for percentiles


@dataclass(frozen=True)
class Measured:
    """Measurements of one case.

    Attributes:
        voxel: mm along the patient's axes.
        sides: voxels along them.
        plane: that of :func:`kvseg_monai.utils.geometry.plane_of` by the voxels.
        body: mm that the box around the body has along them.
        spread: standard deviation without the 0.5 % darkest and brightest voxels, over that with them.
        pieces: label value -> how many pieces it is in, of the values that occur.
    """

    voxel: tuple[float, ...]
    sides: tuple[int, ...]
    plane: int
    body: tuple[float, ...]
    spread: float
    pieces: Mapping[int, int] = field(default_factory=dict)


def measure(cases: Sequence[Case], *, num_classes: int | None = None, workers: int = 2) -> list[Measured]:
    """Measure cases; those that the input checks refuse are left out with a warning.

    Args:
        cases: with image and label.
        num_classes: that the data declare, background included; None takes any values from 0 on.
        workers: threads.

    Raises:
        InputError: no case is left.
    """
    chosen = [cases[number * len(cases) // MOST] for number in range(MOST)] if len(cases) > MOST else list(cases)
    load = Compose(
        [
            LoadVolumed(["image", "label"]),
            CheckVolumed("image", slice_axis="auto"),
            CheckLabelsd("label", num_classes or np.iinfo(np.int16).max),
        ]
    )
    with ThreadPool(workers) as pool:
        outcomes = pool.imap(lambda case: _outcome(load, case), chosen)
        found = list(tqdm(outcomes, total=len(chosen), desc="measuring", unit="case"))
    refused = [outcome for outcome in found if isinstance(outcome, str)]
    for sentence in refused:
        logger.warning("left out: %s", sentence)
    if len(refused) == len(found):
        raise InputError(f"none of {len(found)} cases can be measured, the first since {refused[0]}")
    return [outcome for outcome in found if isinstance(outcome, Measured)]


def _outcome(load: Compose, case: Case) -> Measured | str:
    """Return what is measured of a case, or the sentence that refuses it."""
    try:
        loaded = load({key: case[key] for key in ("image", "label")})
    except Exception as error:
        mistake = find_input_error(error)
        if mistake is None:
            raise
        return str(mistake)
    return measure_case(loaded["image"], loaded["label"])


def measure_case(image: Any, label: Any) -> Measured:
    """Measure one case: image and label map, (I, J, K) with an affine."""
    affine = image.affine.cpu().numpy()
    axes, spacing = array_axes(affine), spacing_of(affine)
    voxels = plain(image).float()
    box = ndimage.find_objects(body_mask(voxels[None])[0].numpy().astype(np.uint8))[0]
    return Measured(
        voxel=tuple(spacing[axis] for axis in axes),
        sides=tuple(image.shape[axis] for axis in axes),
        plane=plane_of(image.shape, affine),
        body=tuple(spacing[axis] * (box[axis].stop - box[axis].start) for axis in axes),
        spread=_spread(voxels.numpy()[box]),
        pieces=_pieces(plain(label).numpy()),
    )


def _spread(voxels: np.ndarray) -> float:
    sample = voxels.ravel()[::SAMPLE]
    clipped = sample.clip(*np.percentile(sample, (0.5, 99.5)))
    return float(clipped.std() / max(float(sample.std(dtype=np.float64)), 1e-12))


def _pieces(label: np.ndarray) -> dict[int, int]:
    label = label.astype(np.int32)
    boxes = enumerate(ndimage.find_objects(label), start=1)
    return {
        value: int(ndimage.label(label[box] == value, structure=TOUCHING)[1]) for value, box in boxes if box is not None
    }
