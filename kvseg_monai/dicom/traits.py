"""Tell volumes at one place apart by what the headers say of their slices."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from kvseg_monai.dicom.frames import TRAITS, Frame
from kvseg_monai.dicom.geometry import axes

FIELDS = "fields of view"


def by_traits(frames: Sequence[Frame]) -> list[tuple[str, list[list[Frame]]]]:
    """Return the parts that each trait makes of slices of one grid, with how to call them, coarsest first."""
    frame = axes(frames[0].orientation)[:2]
    pixel = np.array(frames[0].spacing)[::-1]

    def offset(slice_: Frame) -> tuple:
        return tuple(np.round(frame @ slice_.position / pixel).tolist())

    traits: list[tuple[str, Callable[[Frame], Hashable]]] = [(FIELDS, offset)]
    traits += [(name, lambda frame, index=index: frame.traits[index]) for index, name in enumerate(TRAITS.values())]
    return [(name, _partition(frames, trait)) for name, trait in traits]


def _partition(frames: Sequence[Frame], trait: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    parts = defaultdict(list)
    for frame in frames:
        parts[trait(frame)].append(frame)
    return [parts[key] for key in sorted(parts, key=_natural)]


def _natural(value: Hashable) -> tuple:
    """Numbers in the order of their size, before text."""
    try:
        return (0, float(value), "")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return (1, 0.0, str(value))
