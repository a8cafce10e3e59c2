"""Label maps from DICOM segmentations: each set pixel goes to the voxel of the series that lies at its place.

A segmentation may leave out empty slices, hold its frames in any order, and be cut or turned against the series, so
every frame is placed by its own position. Nothing is resampled: a segmentation on another grid is refused. Of a
fractional segmentation, what is at least one half counts.

RTSTRUCT is left out: the libraries that draw its contours order the slices of a series their own way, or do not run
with the pydicom of today. Convert it to a DICOM segmentation, or to NIfTI, with the planning system.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from data_prep.label_table import BACKGROUND, LabelTable
from kvseg_monai.dicom import Series
from kvseg_monai.dicom.frames import FRAME_GROUPS, Frame, frames_of
from kvseg_monai.dicom.geometry import affine_of, axes
from kvseg_monai.dicom.headers import read_facts
from kvseg_monai.dicom.pixels import decode_file
from kvseg_monai.errors import InputError

SEGMENTATION_TAGS = ["SegmentationType", "SegmentSequence", "MaximumFractionalValue", "ReferencedSeriesSequence"]
ON_GRID = 0.25  # of a voxel: how far a pixel may lie from the centre of one


@dataclass(frozen=True)
class Segmentation:
    """One DICOM SEG object.

    Args:
        name: path relative to the searched folder.
        path: the file.
        frames: place of each frame.
        numbers: segment of each frame; None in a LABELMAP, whose pixels are segment numbers.
        segments: name of each segment number.
        half: a pixel from this value on is set.
        series_uids: series that it refers to.
        instance_uids: slices that it refers to.
    """

    name: str
    path: Path
    frames: tuple[Frame, ...]
    numbers: tuple[int | None, ...]
    segments: dict[int, str]
    half: float
    series_uids: frozenset[str]
    instance_uids: frozenset[str]

    def belongs_to(self, series: Series) -> bool:
        """Whether it lies in the same frame of reference and refers to the series, and to slices of the volume."""
        slices = {frame.header.instance_uid for frame in series.frames}
        return (
            self.frames[0].header.frame_of_reference_uid == series.frame_of_reference_uid
            and (not self.series_uids or series.uid in self.series_uids)
            and (not self.instance_uids or bool(slices & self.instance_uids))
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
        kind = str(facts.get("SegmentationType", "BINARY"))
        references = facts.get("ReferencedSeriesSequence") or []
        instances = (one for item in references for one in item.get("ReferencedInstanceSequence", []))
        found = Segmentation(
            name=name,
            path=path,
            frames=tuple(frames_of(facts, path, name, syntax=str(meta.get("TransferSyntaxUID", "")))),
            numbers=tuple(None if kind == "LABELMAP" else _segment(group) for group in facts[FRAME_GROUPS]),
            segments={int(item.SegmentNumber): str(item.SegmentLabel).strip() for item in facts["SegmentSequence"]},
            half=float(facts["MaximumFractionalValue"]) / 2 if kind == "FRACTIONAL" else 0.5,
            series_uids=frozenset(str(item.SeriesInstanceUID) for item in references),
            instance_uids=frozenset(str(one.ReferencedSOPInstanceUID) for one in instances),
        )
        unnamed = set(found.numbers) - {None, *found.segments}
        if unnamed:
            raise InputError(f"its frames are of segment {unnamed.pop()}, which it does not name; export it again")
        return found
    except InputError as error:
        raise InputError(f"is no usable segmentation: {error}") from None
    except Exception as error:  # on damaged files pydicom raises whatever its parsing meets
        raise InputError(f"is no usable segmentation ({type(error).__name__}); export it again") from None


def _segment(group: pydicom.Dataset) -> int:
    return int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def table_of(segmentations: Sequence[Segmentation]) -> LabelTable:
    """Number the segments of all segmentations by their names.

    Where a name has the same segment number everywhere, the classes have the order of these; else that of the alphabet.
    """
    numbers: dict[str, set[int]] = {}
    for segmentation in segmentations:
        for number, name in segmentation.segments.items():
            numbers.setdefault(_plain(name), set()).add(number)
    steady = all(len(found) == 1 for found in numbers.values())
    names = sorted(numbers, key=lambda name: (min(numbers[name]) if steady else 0, name))
    table = {name: value for value, name in enumerate((name for name in names if name != BACKGROUND), start=1)}
    return LabelTable(table | {BACKGROUND: 0}, {0: BACKGROUND} | {value: name for name, value in table.items()})


def draw(segmentations: Sequence[Segmentation], series: Series, table: LabelTable) -> tuple[np.ndarray, int]:
    """Return label values (X, Y, Z), uint8, on the grid of ``series``, and the number of voxels claimed twice.

    Where segments overlap, the class with the larger label value wins.

    Args:
        segmentations: those that belong to the series; a class may come from one of them only.
        series: the volume.
        table: label value of each segment's name.

    Raises:
        InputError: when a name is not in the table, a class comes twice, or a pixel lies off the grid.
    """
    owners: dict[int, Segmentation] = {}
    layers = []
    for segmentation in segmentations:
        values = _values(segmentation, table)
        for value in set(values.values()) - {0}:
            if owners.setdefault(value, segmentation) is not segmentation:
                raise InputError(
                    f"{segmentation.name} and {owners[value].name} both segment {table.names[value]}; keep one of them"
                )
        layers += [(value, places) for value, places in _pixels(segmentation, series, values) if value]
    labels = np.zeros(series.shape, dtype=np.uint8)
    claims = np.zeros(series.shape, dtype=np.uint8)
    for value, places in sorted(layers, key=lambda layer: layer[0]):
        labels[places] = value
        claims[places] += 1
    return labels, int((claims > 1).sum())


def _values(segmentation: Segmentation, table: LabelTable) -> dict[int, int]:
    """Label value of each segment number."""
    known = {_plain(key): value for key, value in table.values.items()}
    for name in segmentation.segments.values():
        if _plain(name) not in known:
            raise InputError(
                f"{segmentation.name} has the segment '{name}', which --labels does not name ({table.text}); "
                f"add it, as a class or as {BACKGROUND}"
            )
    return {number: known[_plain(name)] for number, name in segmentation.segments.items()}


def _pixels(
    segmentation: Segmentation, series: Series, values: dict[int, int]
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yield label value and voxel indices of each segment in each frame."""
    stored = decode_file(segmentation.path)
    header = segmentation.frames[0].header
    if stored.shape != (header.frames, *header.shape):
        raise InputError(f"{segmentation.name} changed while it was read; run again")
    for frame, number in zip(segmentation.frames, segmentation.numbers, strict=True):
        plane = stored[frame.index]
        numbers = [number] if number is not None else [int(value) for value in np.unique(plane) if value]
        for this in numbers:
            if this not in values:
                raise InputError(f"{segmentation.name} holds segment {this}, which it does not name; export it again")
            rows, columns = np.nonzero(plane == this if number is None else plane >= segmentation.half)
            if len(rows):
                yield values[this], _voxels(frame, columns, rows, series, segmentation.name)


def _voxels(frame: Frame, columns: np.ndarray, rows: np.ndarray, series: Series, name: str) -> tuple[np.ndarray, ...]:
    """Indices (x, y, z) of the voxels at the places of the pixels."""
    plane = affine_of(frame.position, frame.orientation, frame.spacing, axes(frame.orientation)[2])
    into = np.linalg.inv(series.affine) @ plane
    found = into @ np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)])
    voxels = np.rint(found[:3]).astype(int)
    same_size = np.allclose(np.linalg.norm(into[:3, :2], axis=0), 1, atol=0.01)
    inside = ((voxels >= 0) & (voxels < np.reshape(series.shape, (3, 1)))).all()
    if not (same_size and inside and np.abs(found[:3] - voxels).max() <= ON_GRID):
        raise InputError(
            f"{name} lies on another grid than the series that it segments; only the voxels of the series itself can "
            "be labelled: export the segmentation on the grid of its series"
        )
    return tuple(voxels)


def _plain(name: str) -> str:
    """Names that differ in case, blanks, hyphens or underscores mean the same."""
    return "_".join(name.lower().replace("_", " ").replace("-", " ").split())
