"""DICOM segmentations as files: what their segments are, where their frames lie, and to which series they belong."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom

from data_prep.dicom.segment_names import Segment, class_names, normalised_name, segment_of
from kvseg_monai.dicom import Series
from kvseg_monai.dicom.frames import FRAME_GROUPS, SHARED_GROUPS, Facts, Frame, frames_of
from kvseg_monai.dicom.headers import MANUFACTURER, read_facts
from kvseg_monai.errors import InputError
from kvseg_monai.utils.records import digest_of

SEGMENTATION_TAGS = [
    *("SegmentationType", "SegmentSequence", "MaximumFractionalValue", "PixelPaddingValue", "Manufacturer"),
    *("ReferencedSeriesSequence", "StudiesContainingOtherReferencedInstancesSequence"),
]


@dataclass(frozen=True)
class Segmentation:
    """One DICOM SEG object.

    Args:
        name: path relative to the searched folder.
        path: the file.
        frames: place of each frame.
        numbers: segment of each frame; None in a LABELMAP, whose pixels are segment numbers.
        segments: what each segment number is.
        background: the pixel of a LABELMAP that is no segment; None where all are.
        half: a pixel from this value on is set.
        series_uids: series that it refers to.
        instance_uids: slices that it refers to.
        predicted: whether kvseg_monai made it.
    """

    name: str
    path: Path
    frames: tuple[Frame, ...]
    numbers: tuple[int | None, ...]
    segments: dict[int, Segment]
    background: int | None
    half: float
    series_uids: frozenset[str]
    instance_uids: frozenset[str]
    predicted: bool

    def belongs_to(self, series: Series) -> bool:
        """Return whether it refers to the series and to slices of the volume; of what refers to none, whether it may.

        Both lie in one frame of reference, and what refers to nothing must be of the same patient: anonymizers give
        one frame of reference, or none, to everybody.
        """
        header, slices = self.frames[0].header, {frame.header.instance_uid for frame in series.frames}
        return (
            header.frame_of_reference_uid == series.frame_of_reference_uid
            and (not self.series_uids or series.uid in self.series_uids)
            and (not self.instance_uids or bool(slices & self.instance_uids))
            and (bool(self.series_uids or self.instance_uids) or header.patient_id == series.patient_id)
        )


def read_segmentation(path: Path, name: str) -> Segmentation:
    """Read the header of a DICOM SEG; ``name`` stands for it in errors.

    Raises:
        InputError: when it is damaged or lacks a part.
    """
    try:
        facts, meta = read_facts(path, SEGMENTATION_TAGS)
        if facts is None:
            raise InputError("it is no DICOM file; export it again")
        found = _segmentation(facts, path, name, syntax=str(meta.get("TransferSyntaxUID", "")))
        unnamed = set(found.numbers) - {None, *found.segments}
        if unnamed:
            raise InputError(f"its frames are of segment {unnamed.pop()}, which it does not name; export it again")
        return found
    except InputError as error:
        raise InputError(f"is no usable segmentation: {error}") from None
    except Exception as error:  # on damaged files pydicom raises whatever its parsing meets
        raise InputError(f"is no usable segmentation ({type(error).__name__}); export it again") from None


def _segmentation(facts: Facts, path: Path, name: str, *, syntax: str) -> Segmentation:
    kind, items = str(facts.get("SegmentationType", "BINARY")), facts["SegmentSequence"]
    segments = {int(item.SegmentNumber): item for item in items}
    if len(segments) < len(items):
        raise InputError("it gives one number to two segments; export it again")
    background = _background(facts, segments) if kind == "LABELMAP" else 0
    series, instances = _references(facts)
    return Segmentation(
        name=name,
        path=path,
        frames=tuple(frames_of(facts, path, name, syntax=syntax)),
        numbers=tuple(_segment_numbers(facts)) if kind != "LABELMAP" else (None,) * len(facts[FRAME_GROUPS]),
        segments={number: segment_of(item, number) for number, item in segments.items() if number != background},
        background=background,
        half=_half(facts, kind),
        series_uids=frozenset(series),
        instance_uids=frozenset(instances),
        predicted=str(facts.get("Manufacturer") or "").strip() == MANUFACTURER
        and all(item.get("SegmentAlgorithmType") == "AUTOMATIC" for item in items),
    )


def _half(facts: Facts, kind: str) -> float:
    if kind != "FRACTIONAL":
        if kind not in ("BINARY", "LABELMAP"):
            raise InputError(f"its type is {kind[:16]}; BINARY, FRACTIONAL and LABELMAP are read: export it as BINARY")
        return 0.5
    most = float(facts.get("MaximumFractionalValue") or 0)
    if not most > 0:
        raise InputError("it has no MaximumFractionalValue, so nothing says what its fractions mean; export it again")
    return most / 2


def _background(facts: Facts, segments: Container[int]) -> int | None:
    """Return the pixel value of a LABELMAP that is no segment: as stated, else 0 unless that is a segment's number."""
    said = facts.get("PixelPaddingValue")
    return int(said) if said is not None else None if 0 in segments else 0


def _segment_numbers(facts: Facts) -> Iterator[int]:
    """Return the segment of each frame, from the frame's group or, where there is only one, the shared group."""
    (common,) = facts.get(SHARED_GROUPS) or [pydicom.Dataset()]
    for group in facts[FRAME_GROUPS]:
        found = group.get("SegmentIdentificationSequence") or common.SegmentIdentificationSequence
        yield int(found[0].ReferencedSegmentNumber)


def _references(facts: Facts) -> tuple[set[str], set[str]]:
    """Return UIDs of the series and slices that a SEG refers to; of its frames' sources where it lists none."""
    items = list(facts.get("ReferencedSeriesSequence") or ())
    for study in facts.get("StudiesContainingOtherReferencedInstancesSequence") or ():
        items += study.get("ReferencedSeriesSequence") or ()
    instances = [one for item in items for one in item.get("ReferencedInstanceSequence") or ()]
    for group in () if items else (*(facts.get(SHARED_GROUPS) or ()), *(facts.get(FRAME_GROUPS) or ())):
        for derivation in group.get("DerivationImageSequence") or ():
            instances += derivation.get("SourceImageSequence") or ()
    series = {str(item.get("SeriesInstanceUID", "")) for item in items}
    return series - {""}, {str(one.get("ReferencedSOPInstanceUID", "")) for one in instances} - {""}


def without_copies(segmentations: Iterable[Segmentation]) -> tuple[list[Segmentation], list[Segmentation]]:
    """Keep one of the files that are the same byte for byte; return them, and the others."""
    first: dict[tuple[str, int], list[Segmentation]] = {}
    twice: list[Segmentation] = []
    for segmentation in segmentations:
        header = segmentation.frames[0].header
        alike = first.setdefault((header.instance_uid, header.size), [])
        digest = digest_of(segmentation.path) if alike else ""
        (twice if any(digest_of(one.path) == digest for one in alike) else alike).append(segmentation)
    return sorted((one for alike in first.values() for one in alike), key=lambda one: one.name), twice


def with_class_names(segmentations: Mapping[str, Segmentation]) -> dict[str, Segmentation]:
    """Say of each segment of which class it is (:func:`data_prep.dicom.segment_names.class_names`); the keys stay."""
    names = class_names({segment for one in segmentations.values() for segment in one.segments.values()})
    return {
        key: replace(one, segments={number: replace(part, name=names[part]) for number, part in one.segments.items()})
        for key, one in segmentations.items()
    }


def name_remarks(segmentations: Iterable[Segmentation]) -> list[str]:
    """Return remarks: which names have several codes, and which segments of one file make one class."""
    remarks, kinds = [], defaultdict(set)
    for one in segmentations:
        classes = defaultdict(list)
        for number, segment in one.segments.items():
            classes[segment.name].append(str(number))
            kinds[normalised_name(segment.label)].add(segment.name)
        remarks += [
            f"{one.name}: segments {', '.join(numbers)} are one class, {name}: name and codes are equal"
            for name, numbers in classes.items()
            if len(numbers) > 1
        ]
    return remarks + [
        f"segments called {label} have several codes and are several classes: {', '.join(sorted(names))}"
        for label, names in sorted(kinds.items())
        if len(names) > 1
    ]
