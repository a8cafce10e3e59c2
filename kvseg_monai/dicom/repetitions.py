"""Split repetitions by their order alone: the first slice at each position makes the first volume, and so on.

A scan that was stopped, or lost files, has fewer slices at some places than at others. Then the n-th slice at a place
need not be of the n-th repetition, and counting would mix two. So it must be plain where each repetition begins.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby

from kvseg_monai.dicom.frames import RANKS, Frame

SURE = 3  # slices: of so few, any order is that of neighbours, begun somewhere
UNEVEN = 1.5  # a volume that took more than this many times as long as another has slices of two


def by_rank(frames: Sequence[Frame], places: Sequence[int]) -> list[tuple[str, list[list[Frame]]]]:
    """Return, for each of RANKS that orders them, its name and the repetitions.

    Args:
        frames: slices of one grid.
        places: of each, its place along the normal, counted from 0.
    """
    ways = []
    for number, keyword in enumerate(RANKS):
        values = [rank for frame in frames if (rank := frame.ranks[number]) is not None]
        if len(values) < len(frames) or len(set(zip(places, values, strict=True))) < len(frames):
            continue
        slices = [index for *_, index in sorted(zip(values, places, range(len(frames)), strict=True))]
        parts = _numbered(places, values, slices) if keyword == "InstanceNumber" else None
        parts = parts or _volume_by_volume(places, slices) or _slice_by_slice(places, slices)
        if parts and _even([[values[index] for index in part] for part in parts]):
            ways.append((f"repetitions by {keyword}", [[frames[index] for index in part] for part in parts]))
    return ways


def _numbered(places: Sequence[int], numbers: Sequence[float], slices: list[int]) -> list[list[int]] | None:
    """Cut ``slices``, indices in their order, where the numbers count from 1 through whole volumes."""
    count = max(places) + 1
    if len({((number - 1) % count, place) for number, place in zip(numbers, places, strict=True)}) > count:
        return None
    if not 1 <= min(numbers) <= count:
        return None
    return [list(part) for _, part in groupby(slices, key=lambda index: (numbers[index] - 1) // count)]


def _volume_by_volume(places: Sequence[int], slices: list[int]) -> list[list[int]] | None:
    """Cut ``slices`` where a new volume begins; None where that is not plain.

    Scanned one after the other, slices have one order of places in all volumes. Where the first and the last volume are
    short, it is not known where in that order a volume begins: with the first slice of all, if the slices follow each
    other from one end to the other.
    """
    most, count = max(Counter(places).values()), max(places) + 1
    order = next((run for run in _runs([places[index] for index in slices]) if len(run) == count), None)
    if order is None:
        return None
    ways = []
    for turn in range(count):
        turned = order[turn:] + order[:turn]
        parts = _cut(slices, [turned.index(places[index]) for index in slices])
        if len(parts) == most:
            ways.append((sum(len(part) == count for part in parts), turned, parts))
    likely = [way for way in ways if way[0] == max(ways)[0]]
    if len(likely) > 1:
        ends = (sorted(order), sorted(order, reverse=True)) if count > SURE else ()
        likely = [way for way in likely if way[1] in ends and way[1][0] == places[slices[0]]]
    return likely[0][2] if likely else None


def _runs(places: Sequence[int]) -> list[list[int]]:
    """Cut ``places`` where one comes again."""
    runs: list[list[int]] = [[]]
    for place in places:
        if place in runs[-1]:
            runs.append([])
        runs[-1].append(place)
    return runs


def _cut(slices: list[int], numbers: list[int]) -> list[list[int]]:
    """Cut ``slices`` where their ``numbers`` do not grow."""
    starts = [at for at in range(len(slices)) if at == 0 or numbers[at] <= numbers[at - 1]]
    return [slices[start:end] for start, end in zip(starts, [*starts[1:], len(slices)], strict=True)]


def _slice_by_slice(places: Sequence[int], slices: list[int]) -> list[list[int]] | None:
    """Count at each place, where all have equally many, or where only the one that was scanned last has fewer."""
    here = defaultdict(list)
    for index in slices:
        here[places[index]].append(index)
    *before, last = here.values()  # in the order of their first slices
    if len({len(one) for one in before}) > 1 or len(last) > len(before[0]):
        return None
    if len(last) < len(before[0]) and [index for one in here.values() for index in one] != slices:
        return None
    return [[one[number] for one in here.values() if number < len(one)] for number in range(len(before[0]))]


def _even(values: list[list[float]]) -> bool:
    """Return whether whole volumes span about as much of the rank each; one of two repetitions spans more."""
    largest = max(map(len, values))
    if len({len(part) for part in values}) == 1:
        return True
    spans = [max(part) - min(part) for part in values if len(part) == largest]
    return max(spans) <= UNEVEN * min(spans)
