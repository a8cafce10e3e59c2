"""Join slices that have a SeriesInstanceUID each into volumes; some scanners and anonymizers write such series."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kvseg_monai.dicom.frames import RANKS, VOLUME_ATTRIBUTES, Frame
from kvseg_monai.dicom.geometry import slice_step
from kvseg_monai.dicom.stacks import Stack, by_grid, stacks
from kvseg_monai.errors import InputError

# Series differ in these, volumes that are repeated in one do not.
CONTRAST = [
    list(VOLUME_ATTRIBUTES).index(keyword) for keyword in ("ImageType", "EchoTime", "InversionTime", "FlipAngle")
]
Group = tuple[str, list[Frame], tuple[str, ...]]  # SeriesInstanceUID, slices, notes


def join_single_slices(series: Mapping[str, list[Frame]]) -> Iterator[Group]:
    """Yield the series; those of one slice are joined where together they make a volume.

    For that study, series number, description, contrast and grid must be equal, and the positions without a gap. Where
    they are not, a note says how many there are.
    """
    single: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for uid, frames in series.items():
        if len(frames) > 1 or frames[0].header.frames > 1:
            yield uid, frames, ()
        else:
            header = frames[0].header
            single[header.patient_id, header.series_number, header.description].append(frames[0])
    for alike in single.values():
        yield from _groups_of(alike)


def _groups_of(alike: Sequence[Frame]) -> Iterator[Group]:
    """Yield what single slices of one patient, series number and description make."""
    groups: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in alike:
        groups[(frame.header.study_uid, *(frame.attributes[index] for index in CONTRAST))].append(frame)
    for grid in (grid for group in groups.values() for grid in by_grid(group)):
        if _is_one(grid):
            note = f"{len(grid)} slices with a SeriesInstanceUID each, joined"
            yield min(frame.header.series_uid for frame in grid), grid, (note,)
            continue
        note = f"one of {len(alike)} single slices of one series number, with a SeriesInstanceUID each, not joined"
        for frame in grid:
            yield frame.header.series_uid, [frame], (note,) if len(alike) > 1 else ()


def _is_one(grid: Sequence[Frame]) -> bool:
    """Return whether slices make volumes, without a gap, and are numbered: as a series, or each in one."""
    numbers = [frame.ranks[RANKS.index("InstanceNumber")] for frame in grid]
    if len(grid) < 2 or (not grid[0].header.series_number and len(set(numbers)) < len(numbers)):
        return False
    parts = stacks(grid)
    if any(isinstance(part, Stack) and len(part.frames) < 2 for part in parts):
        return False
    try:
        for part in (part for part in parts if isinstance(part, Stack)):
            positions = np.array([frame.position for frame in part.frames])
            slice_step(positions, part.frames[0].orientation, part.frames[0].spacing)
    except InputError:
        return False
    return any(isinstance(part, Stack) for part in parts)
