"""Find copies of a slice, as a folder holds that was filled twice."""

import filecmp
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from kvseg_monai.dicom.frames import Frame, Header
from kvseg_monai.dicom.pixels import decode
from kvseg_monai.errors import InputError


def without_duplicates(frames: Sequence[Frame]) -> tuple[list[Frame], list[tuple[Frame, str]]]:
    """Keep one of the slices that are copies of each other; return them, and the others with what they are.

    A copy has the same SOPInstanceUID, place and values; the file may differ, by its compression for one. The largest
    one is kept, since another may be cut off: what cannot be decoded counts as a copy, too. Careless tools give one UID
    to all slices of a series, so the same UID at another place, or with other values, is another slice.
    """
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in sorted(frames, key=lambda frame: (-frame.header.size, frame.header.name)):
        groups[frame.header.instance_uid, frame.index, frame.position].append(frame)
    same_file = cache(lambda one, two: filecmp.cmp(one, two, shallow=False))
    decoded = lru_cache(maxsize=2)(decode)  # the frames of two files come one after the other
    kept, twice = [], []
    for group in groups.values():
        others: list[Frame] = []
        for frame in group:
            reasons = (_copy(frame, other, same_file, decoded) for other in others)
            reason = next(filter(None, reasons), None)
            if reason:
                twice.append((frame, reason))
            else:
                others.append(frame)
        kept += others
    return kept, twice


def _copy(
    frame: Frame,
    other: Frame,
    same_file: Callable[[Path, Path], bool],
    decoded: Callable[[Header], np.ndarray],
) -> str | None:
    """Say what a slice is to another of the same UID and place, None where it is none of its copies."""
    one, two = sorted((frame.header.path, other.header.path))
    try:
        if same_file(one, two):
            return "a second copy of a slice"
        values = [decoded(slice_.header)[slice_.index] for slice_ in (other, frame)]
    except (OSError, InputError):
        return "a second copy of a slice, damaged"
    if frame.rescale == other.rescale and np.array_equal(*values):
        return "a second copy of a slice"
    return None
