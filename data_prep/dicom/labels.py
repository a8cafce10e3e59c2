"""Label maps from DICOM segmentations: each set pixel goes to the voxel of the series that lies at its place.

A segmentation may leave out empty slices, hold its frames in any order, and be cut or turned against the series, so
every frame has its own position. Nothing is resampled: a segmentation on another grid is refused. Of a
fractional segmentation, what is at least one half counts.

RTSTRUCT is left out: the libraries that draw its contours order the slices of a series their own way, or do not run
with the pydicom of today. Convert it to a DICOM segmentation, or to NIfTI, with the planning system.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_prep.common.label_table import BACKGROUND, LabelTable, parse_table
from data_prep.dicom.segment_names import normalised_name
from data_prep.dicom.segmentation import Segmentation
from kvseg_monai.dicom import Series
from kvseg_monai.dicom.decode import decode_file
from kvseg_monai.dicom.frames import Frame
from kvseg_monai.dicom.geometry import affine_of, axes
from kvseg_monai.errors import InputError

ON_GRID = 0.25  # of a voxel: how far a pixel may lie from the centre of one
OTHER_GRID = (
    "lies on another grid than the series that it segments; only the voxels of the series itself can be labelled: "
    "export the segmentation on the grid of its series"
)


def table_of(segmentations: Iterable[Segmentation]) -> LabelTable:
    """Number the classes of all segmentations.

    Where a class has the same segment number everywhere, the classes have the order of these; else that of the
    alphabet.
    """
    numbers: dict[str, set[int]] = {}
    for segmentation in segmentations:
        for number, segment in segmentation.segments.items():
            numbers.setdefault(segment.name, set()).add(number)
    steady = all(len(found) == 1 for found in numbers.values())
    names = sorted(numbers, key=lambda name: (min(numbers[name]) if steady else 0, name))
    table = {name: value for value, name in enumerate((name for name in names if name != BACKGROUND), start=1)}
    return LabelTable(table | {BACKGROUND: 0}, {0: BACKGROUND} | {value: name for name, value in table.items()})


def parse_segment_table(text: str) -> LabelTable:
    """Read ``SEGMENT=CLASS,SEGMENT=CLASS``.

    Raises:
        InputError: see :func:`data_prep.common.label_table.parse_table`; also for keys that mean one segment and
            have two classes.
    """
    table = parse_table(text)
    known: dict[str, int] = {}
    for key, value in table.values.items():
        if known.setdefault(normalised_name(key), value) != value:
            raise InputError(
                f"--labels has {key} twice, but for case, blanks and the like; each segment may have one class: remove "
                "one of them"
            )
    return table


def lies_on(segmentation: Segmentation, series: Series) -> bool:
    """Return whether the pixels of all frames are at centres of voxels of ``series``' grid, and some within it."""
    rows, columns = segmentation.frames[0].header.shape
    corners = np.array([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]])
    inside = False
    for frame in segmentation.frames:
        places, on_grid = _places(frame, corners[:, 0], corners[:, 1], series)
        if not on_grid:
            return False
        low, high = places.min(axis=1), places.max(axis=1)
        inside |= bool((high >= 0).all() and (low < series.shape).all())
    return inside


def draw(segmentations: Sequence[Segmentation], series: Series, table: LabelTable) -> tuple[np.ndarray, int]:
    """Return label values (X, Y, Z), uint8, on the grid of ``series``, and the number of voxels of several classes.

    Where segments overlap, the class with the larger label value wins.

    Args:
        segmentations: those that belong to the series; a class may come from one of them only.
        series: the volume.
        table: label value of each class, by its name or what --labels calls it.

    Raises:
        InputError: when a name is not in the table, a class comes twice, or a pixel lies off the grid.
    """
    owners: dict[int, Segmentation] = {}
    layers = []
    for segmentation in segmentations:
        if not lies_on(segmentation, series):
            raise InputError(f"{segmentation.name} {OTHER_GRID}")
        for value, places in _pixels(segmentation, series, _values(segmentation, table)):
            if value and owners.setdefault(value, segmentation) is not segmentation:
                raise InputError(
                    f"{segmentation.name} and {owners[value].name} both segment {table.names[value]}; keep one of them"
                )
            layers += [(value, places)] if value else []
    labels = np.zeros(series.shape, dtype=np.uint8)
    several = np.zeros(series.shape, dtype=bool)
    for value, places in sorted(layers, key=lambda layer: layer[0]):
        several[places] |= (labels[places] > 0) & (labels[places] != value)
        labels[places] = value
    return labels, int(several.sum())


def _values(segmentation: Segmentation, table: LabelTable) -> dict[int, int]:
    """Return the label value of each segment number."""
    known = {BACKGROUND: 0} | {normalised_name(key): value for key, value in table.values.items()}
    for segment in segmentation.segments.values():
        if segment.name not in known:
            several = (
                "" if segment.name == normalised_name(segment.label) else ", of which there are several by their codes"
            )
            raise InputError(
                f"{segmentation.name} has the segment '{segment.label}'{several}, and --labels does not name it "
                f"({table.text}); add {segment.name}, as a class or as {BACKGROUND}"
            )
    return {number: known[segment.name] for number, segment in segmentation.segments.items()}


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
        numbers = [number] if number is not None else sorted({*np.unique(plane).tolist()} - {segmentation.background})
        for this in numbers:
            if this not in values:
                raise InputError(f"{segmentation.name} holds segment {this}, which it does not name; export it again")
            rows, columns = np.nonzero(plane == this if number is None else plane >= segmentation.half)
            if len(rows):
                yield values[this], _voxels(frame, columns, rows, series, segmentation.name)


def _voxels(frame: Frame, columns: np.ndarray, rows: np.ndarray, series: Series, name: str) -> tuple[np.ndarray, ...]:
    """Return the indices (x, y, z) of the voxels at the positions of the pixels."""
    voxels, on_grid = _places(frame, columns, rows, series)
    if not on_grid or not ((voxels >= 0) & (voxels < np.reshape(series.shape, (3, 1)))).all():
        raise InputError(f"{name} {OTHER_GRID}")
    return tuple(voxels)


def _places(frame: Frame, columns: np.ndarray, rows: np.ndarray, series: Series) -> tuple[np.ndarray, bool]:
    """Return indices (3, pixels) in the grid of ``series``, maybe beyond it, and whether they are on the grid."""
    plane = affine_of(frame.position, frame.orientation, frame.spacing, axes(frame.orientation)[2])
    into = np.linalg.inv(series.affine) @ plane
    found = into @ np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)])
    voxels = np.rint(found[:3]).astype(int)
    same_size = np.allclose(np.linalg.norm(into[:3, :2], axis=0), 1, atol=0.01)
    return voxels, bool(same_size and np.abs(found[:3] - voxels).max() <= ON_GRID)
