"""Split slices at the same positions into volumes by attributes of their headers, such as echo time or b-value."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np

from kvseg_monai.dicom.frames import VOLUME_ATTRIBUTES, Frame
from kvseg_monai.dicom.geometry import axes

FIELDS = "fields of view"


def by_attribute(frames: Sequence[Frame]) -> list[tuple[str, list[list[Frame]]]]:
    """Return, for each attribute, its name and the parts that it splits slices of one grid into; coarsest first."""
    frame = axes(frames[0].orientation)[:2]
    pixel = np.array(frames[0].spacing)[::-1]

    def offset(slice_: Frame) -> tuple[Any, ...]:
        return tuple(np.round(frame @ slice_.position / pixel).tolist())

    attributes: list[tuple[str, Callable[[Frame], Hashable]]] = [(FIELDS, offset)]
    attributes += [(name, partial(_attribute, index)) for index, name in enumerate(VOLUME_ATTRIBUTES.values())]
    return [(name, _partition(frames, value_of)) for name, value_of in attributes]


def _attribute(index: int, frame: Frame) -> Hashable:
    return frame.attributes[index]


def _partition(frames: Sequence[Frame], value_of: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    parts = defaultdict(list)
    for frame in frames:
        parts[value_of(frame)].append(frame)
    return [parts[key] for key in sorted(parts, key=_natural)]


def _natural(value: Hashable) -> tuple[Any, ...]:
    """Return a sort key: numbers in the order of their size, before text."""
    try:
        return (0, float(value), "")  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return (1, 0.0, str(value))
