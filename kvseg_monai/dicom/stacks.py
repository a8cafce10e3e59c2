"""Sort the slices of one series into volumes: no slice twice, one grid, one slice per place, in geometric order."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from kvseg_monai.dicom.frames import RANKS, TRAITS, Frame
from kvseg_monai.dicom.geometry import SAME_PLACE_MM, along_normal, axes, parts_between_gaps
from kvseg_monai.errors import InputError

ANGLE = 1e-3  # radians (and share of the spacing) within which slices belong to one grid


@dataclass(frozen=True)
class Stack:
    """Slices of one grid in geometric order, and how they were told from others of their series."""

    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()


def without_duplicates(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Keep one of the slices that have the same SOPInstanceUID and place; return them, and the others.

    The largest file is kept, since a copy may be cut off. The same UID at another place stays: careless tools give
    one UID to all slices of a series.
    """
    first: dict[Hashable, Frame] = {}
    twice = []
    for frame in sorted(frames, key=lambda frame: (-frame.header.size, frame.header.name)):
        kept = first.setdefault((frame.header.instance_uid, frame.index, frame.position), frame)
        if kept is not frame:
            twice.append(frame)
    return list(first.values()), twice


def stacks(frames: Sequence[Frame], *, split_gaps: bool = False) -> list[Stack | tuple[Frame, str]]:
    """Return the volumes of one series; of a part that makes none, its first slice and the reason.

    Their order and so their numbers depend on the headers alone, not on file names.
    """
    found: list[Stack | tuple[Frame, str]] = []
    grids = _by_grid(frames)
    note = (f"{len(grids)} grids (orientation, size or spacing)",) if len(grids) > 1 else ()
    for grid in grids:
        try:
            parts = _one_per_place(Stack(tuple(grid), note))
        except InputError as error:
            found.append((grid[0], str(error)))
            continue
        found += [cut for part in parts for cut in _cut(part, split_gaps)]
    return found


def _by_grid(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group slices whose matrix and frame of reference are equal, and orientation and spacing nearly so."""
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=_grid):
        if groups and _same_grid(groups[-1][0], frame):
            groups[-1].append(frame)
        else:
            match = next((group for group in groups if _same_grid(group[0], frame)), None)
            groups.append([frame]) if match is None else match.append(frame)
    return groups


def _grid(frame: Frame) -> tuple:
    return (frame.header.frame_of_reference_uid, frame.header.shape, frame.orientation, frame.spacing, frame.position)


def _same_grid(one: Frame, two: Frame) -> bool:
    return (
        _grid(one)[:2] == _grid(two)[:2]
        and all(abs(a - b) <= ANGLE for a, b in zip(one.orientation, two.orientation, strict=True))
        and all(abs(a - b) <= ANGLE * b for a, b in zip(one.spacing, two.spacing, strict=True))
    )


def _places(frames: Sequence[Frame]) -> np.ndarray:
    """Number of each slice's place along the normal, counted from 0."""
    along = along_normal(np.array([frame.position for frame in frames]), frames[0].orientation)
    order = np.argsort(along, kind="stable")
    number = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_PLACE_MM)])
    return number[np.argsort(order)]


def _one_per_place(stack: Stack) -> list[Stack]:
    """Split until no two slices share a place, by what the headers tell them apart with.

    Raises:
        InputError: when nothing does.
    """
    frames = stack.frames
    places = _places(frames)
    most = max(Counter(places.tolist()).values())
    if most == 1:
        return [Stack(tuple(frames[index] for index in np.argsort(places)), stack.notes)]
    for name, parts in (*_by_traits(frames), *_by_rank(frames, places.tolist())):
        # A trait that differs from slice to slice tells slices apart, not volumes: it makes more parts than volumes.
        fewer = max(max(Counter(_places(part).tolist()).values()) for part in parts) < most
        if 2 <= len(parts) <= most and fewer:
            notes = (*stack.notes, f"{len(parts)} {name} at the same place")
            return [volume for part in parts for volume in _one_per_place(Stack(tuple(part), notes))]
    raise InputError(
        f"{most} slices lie at the same place and nothing in their headers tells them apart; "
        "export each volume as a series of its own"
    )


def _by_traits(frames: Sequence[Frame]) -> list[tuple[str, list[list[Frame]]]]:
    frame = axes(frames[0].orientation)[:2]
    pixel = np.array(frames[0].spacing)[::-1]

    def offset(slice_: Frame) -> tuple:
        return tuple(np.round(frame @ slice_.position / pixel).tolist())

    traits: list[tuple[str, Callable[[Frame], Hashable]]] = [("fields of view", offset)]
    traits += [(name, lambda frame, index=index: frame.traits[index]) for index, name in enumerate(TRAITS.values())]
    return [(name, _partition(frames, trait)) for name, trait in traits]


def _by_rank(frames: Sequence[Frame], places: list[int]) -> list[tuple[str, list[list[Frame]]]]:
    """The first slice at each place, the second, and so on, by the first of RANKS that orders all places alike."""
    ways = []
    for index, keyword in enumerate(RANKS):
        here = defaultdict(list)
        for frame, place in zip(frames, places, strict=True):
            here[place].append(frame.ranks[index])
        equal = len({len(values) for values in here.values()}) == 1
        if equal and all(None not in values and len(set(values)) == len(values) for values in here.values()):
            rank = {id(f): sorted(here[p]).index(f.ranks[index]) for f, p in zip(frames, places, strict=True)}
            ways.append((f"repetitions by {keyword}", _partition(frames, lambda frame, rank=rank: rank[id(frame)])))
    return ways


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


def _cut(stack: Stack, split_gaps: bool) -> list[Stack]:
    if not split_gaps:
        return [stack]
    along = along_normal(np.array([frame.position for frame in stack.frames]), stack.frames[0].orientation)
    parts = parts_between_gaps(along)
    notes = (*stack.notes, f"{len(parts)} parts between gaps") if len(parts) > 1 else stack.notes
    return [Stack(tuple(stack.frames[index] for index in part), notes) for part in parts]
