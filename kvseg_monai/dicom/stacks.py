"""Sort the slices of one series into volumes: one grid, one slice per place, in geometric order."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from kvseg_monai.dicom.frames import Frame
from kvseg_monai.dicom.geometry import SAME_PLACE_MM, along_normal, parts_between_gaps
from kvseg_monai.dicom.repetitions import by_rank
from kvseg_monai.dicom.volume_attributes import FIELDS, by_attribute
from kvseg_monai.errors import InputError

ANGLE = 1e-3  # radians (and share of the spacing) within which slices belong to one grid
MAY_DIFFER = (FIELDS, "image types")  # volumes of one series that need not cover the same places
Way = tuple[str, list[list[Frame]]]  # how to call the parts of a split, and the parts


@dataclass(frozen=True)
class Stack:
    """Slices of one grid in geometric order, and how they were distinguished from others of their series."""

    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """Slices that make no volume: the first of them, why, and whether the user should check it."""

    frame: Frame
    reason: str
    fault: bool = True


def stacks(frames: Sequence[Frame], *, split_gaps: bool = False, notes: tuple[str, ...] = ()) -> list[Stack | LeftOut]:
    """Return the volumes of one series, and what makes none.

    Their order and so their numbers depend on the headers alone, not on file names. Of volumes at the same place, one
    that lacks slices which the others have is left out, unless ``split_gaps`` asks for parts.
    """
    grids = by_grid(frames)
    if len(grids) > 1:
        notes = (*notes, f"{len(grids)} grids (orientation, size or spacing)")
    found: list[Stack | LeftOut] = []
    for grid in grids:
        try:
            parts = _one_per_place(Stack(tuple(grid), notes), keep_short=split_gaps)
        except InputError as error:
            parts = [LeftOut(grid[0], str(error))]
        found += [piece for part in parts for piece in (_split_at_gaps(part) if split_gaps else (part,))]
    return found


def by_grid(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group slices whose matrix and frame of reference are equal, and orientation and spacing nearly so."""
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=_grid):
        if groups and _same_grid(groups[-1][0], frame):
            groups[-1].append(frame)
        else:
            match = next((group for group in groups if _same_grid(group[0], frame)), None)
            groups.append([frame]) if match is None else match.append(frame)
    return groups


def _grid(frame: Frame) -> tuple[Any, ...]:
    return (frame.header.frame_of_reference_uid, frame.header.shape, frame.orientation, frame.spacing, frame.position)


def _same_grid(one: Frame, two: Frame) -> bool:
    return (
        _grid(one)[:2] == _grid(two)[:2]
        and all(abs(a - b) <= ANGLE for a, b in zip(one.orientation, two.orientation, strict=True))
        and all(abs(a - b) <= ANGLE * b for a, b in zip(one.spacing, two.spacing, strict=True))
    )


def _places(frames: Sequence[Frame]) -> np.ndarray:
    """Return the number of each slice's position along the normal, counted from 0."""
    along = along_normal(np.array([frame.position for frame in frames]), frames[0].orientation)
    order = np.argsort(along, kind="stable")
    number = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_PLACE_MM)])
    return number[np.argsort(order)]


def _one_per_place(stack: Stack, *, keep_short: bool) -> list[Stack | LeftOut]:
    """Split until no two slices share a place, by what distinguishes them in the headers."""
    frames = stack.frames
    places = _places(frames).tolist()
    most = max(Counter(places).values())
    if most == 1:
        return [Stack(tuple(frames[index] for index in np.argsort(places)), stack.notes)]
    place = {id(frame): number for frame, number in zip(frames, places, strict=True)}
    for name, parts in _ways(frames, places):
        if max(max(Counter(place[id(frame)] for frame in part).values()) for part in parts) < most:
            found: list[Stack | LeftOut] = []
            for part in _with_notes(name, parts, stack.notes, place=place, keep_short=keep_short):
                found += [part] if isinstance(part, LeftOut) else _one_per_place(part, keep_short=keep_short)
            return found
    return [LeftOut(frames[places.index(min(places))], _indistinguishable(places))]


def _ways(frames: Sequence[Frame], places: Sequence[int]) -> Iterator[Way]:
    """Yield ways to split, the surest first.

    An attribute that differs from slice to slice distinguishes slices, not volumes: it makes more parts than there are
    slices at a place. So may one whose volumes are short; it comes last, and one of its volumes must be whole.
    """
    most, every = max(Counter(places).values()), len(set(places))
    place = {id(frame): number for frame, number in zip(frames, places, strict=True)}
    attributes = [way for way in by_attribute(frames) if len(way[1]) > 1]
    yield from (way for way in attributes if len(way[1]) <= most)
    yield from by_rank(frames, places)
    yield from (way for way in attributes if any(len({place[id(frame)] for frame in part}) == every for part in way[1]))


def _with_notes(
    name: str, parts: Sequence[list[Frame]], notes: tuple[str, ...], *, place: dict[int, int], keep_short: bool
) -> Iterator[Stack | LeftOut]:
    """Yield each part of a split with its notes; one that lacks slices of what most have is left out.

    A scan that was stopped lacks slices in its last volume, which is as it should be; one that lacks them elsewhere
    has lost files. Images of several types, as a map beside its source, may well cover different places.
    """
    covered = [frozenset(place[id(frame)] for frame in part) for part in parts]
    count = Counter(covered)
    usual = max(covered, key=lambda places: (count[places], len(places)))
    short = [places < usual for places in covered]
    by_number = sorted(range(len(parts)), key=lambda index: (_last_number(parts[index]), index))
    stopped = {*_tail(range(len(parts)), short), *_tail(by_number, short)}
    for index, (part, places) in enumerate(zip(parts, covered, strict=True)):
        noted = (*notes, f"{len(parts)} {name} at the same place")
        if short[index] and not keep_short and name not in MAY_DIFFER:
            which = {0: "the first", len(parts) - 1: "the last"}.get(index, f"number {index + 1}")
            reason = f"{which} of {len(parts)} {name} has {len(places)} slices of {len(usual)} and is left out"
            first = min(part, key=lambda frame: place[id(frame)])
            yield LeftOut(first, reason, fault=index not in stopped)
        elif name != FIELDS and (short[index] or places > usual):
            yield Stack(tuple(part), (*noted, f"{len(places)} slices where most have {len(usual)}"))
        else:
            yield Stack(tuple(part), noted)


def _last_number(part: Sequence[Frame]) -> float:
    """Return the largest InstanceNumber."""
    return max(frame.ranks[-1] or 0 for frame in part)


def _tail(order: Sequence[int], short: Sequence[bool]) -> list[int]:
    """Return the short ones that no whole one follows."""
    return list(takewhile(lambda index: short[index], reversed(order)))


def _indistinguishable(places: Sequence[int]) -> str:
    counts = Counter(places).values()
    lie = f"{max(counts)} slices lie at the same place"
    if len(set(counts)) == 1:
        problem = f"{lie} and nothing in their headers distinguishes them"
    else:
        problem = f"{lie}, fewer at others, and nothing in their headers says for sure which belong together"
    return f"{problem}; export each volume as a series of its own"


def _split_at_gaps(part: Stack | LeftOut) -> list[Stack | LeftOut]:
    """Return the parts of a volume between missing slices."""
    if isinstance(part, LeftOut):
        return [part]
    along = along_normal(np.array([frame.position for frame in part.frames]), part.frames[0].orientation)
    pieces = parts_between_gaps(along)
    notes = (*part.notes, f"{len(pieces)} parts between gaps") if len(pieces) > 1 else part.notes
    return [Stack(tuple(part.frames[index] for index in piece), notes) for piece in pieces]
