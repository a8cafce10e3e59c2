"""Find MR series below a folder; a :class:`Series` knows its slices in geometric order, its affine and its voxels.

Voxels are (X, Y, Z): column, row, slice; the slice index grows along the normal of the slices (row x column).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from kvseg_monai.dicom.duplicates import without_duplicates
from kvseg_monai.dicom.frames import Frame
from kvseg_monai.dicom.geometry import affine_of, axes, slice_step
from kvseg_monai.dicom.headers import quiet, read_header
from kvseg_monai.dicom.pixels import decode_slices
from kvseg_monai.dicom.search import Search
from kvseg_monai.dicom.single_slice_series import join_single_slices
from kvseg_monai.dicom.skipped import Skipped
from kvseg_monai.dicom.stacks import LeftOut, Stack, stacks
from kvseg_monai.errors import InputError


@dataclass(frozen=True, eq=False)
class Series:
    """One MR volume that lies in DICOM files.

    Args:
        name: ``series004-1f2e3d4c5b``: SeriesNumber and a hash of the SeriesInstanceUID, with ``-2`` for the second
            volume of a series and so on. It is the same wherever the files lie, and says nothing of the patient.
        uid: SeriesInstanceUID; the first of several where each slice has its own.
        modality: always MR.
        frames: slices in geometric order.
        notes: how the volume was distinguished from others of its series.
        patient_id: what identifies the patient (PatientID, else name and birth date, else the study).
    """

    name: str
    uid: str
    modality: str
    frames: tuple[Frame, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    patient_id: str = field(default="", repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z): columns, rows, slices."""
        rows, columns = self.frames[0].header.shape
        return columns, rows, len(self.frames)

    @property
    def frame_of_reference_uid(self) -> str:
        """FrameOfReferenceUID, "" where the files have none."""
        return self.frames[0].header.frame_of_reference_uid

    @property
    def paths(self) -> list[Path]:
        """The files, each once, in the order of their first slice."""
        return list(dict.fromkeys(frame.header.path for frame in self.frames))

    @cached_property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel index to RAS mm. The slice spacing comes from positions; a single slice's from its header.

        Raises:
            InputError: for slices that are missing, unequally spaced, sheared, or a single one without thickness.
        """
        first = self.frames[0]
        positions = np.array([frame.position for frame in self.frames])
        if len(positions) > 1:
            step = slice_step(positions, first.orientation, first.spacing)
        elif first.thickness:
            step = axes(first.orientation)[2] * first.thickness
        else:
            raise InputError(
                "a single slice with neither SpacingBetweenSlices nor SliceThickness; its volume cannot be known: "
                "export the series again from its source"
            )
        return affine_of(first.position, first.orientation, first.spacing, step)

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return voxels (X, Y, Z) and affine (4, 4).

        Rescale slope and intercept are applied, which makes float32; without them the stored integer type stays.
        MONOCHROME1, where the largest stored value is black, is turned over, so that bright is large.

        Raises:
            InputError: when a slice cannot be decoded; see also :attr:`affine`.
        """
        affine = self.affine
        return decode_slices(self.frames).T, affine

    def datasets(self) -> list[Dataset]:
        """Return the headers, without pixels, of :attr:`paths`: what a DICOM SEG refers to.

        Raises:
            InputError: when a file has gone or changed.
        """
        found: list[Series] = []
        for path in self.paths:
            try:
                with quiet():
                    found.append(pydicom.dcmread(path, stop_before_pixels=True, force=True))
            except Exception as error:  # see read_header
                raise InputError(f"{path} cannot be read ({type(error).__name__}); restore it") from None
        return found


def find_series(
    source: str | os.PathLike[str],
    *,
    split_gaps: bool = False,
    apply: Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]] = map,
) -> tuple[list[Series], list[Skipped]]:
    """Find the MR volumes in a folder and the folders below it, or in one file.

    Names, extensions and a DICOMDIR play no role. Links are followed (see :class:`Search`), hidden folders are not
    searched. Left out, each with a reason: what is not DICOM or not MR, localizers, mosaics, projections, colour
    images, second copies of a slice, damaged files, and volumes whose slices are missing, unequally spaced or sheared.

    Args:
        source: the folder or file.
        split_gaps: make a volume of each part where slices are missing, instead of refusing.
        apply: what runs the reader over the files, as ``map`` does; a process pool's may be faster.

    Returns:
        Volumes in the order of their names, and what was left out in the order of the files.

    Raises:
        InputError: ``source`` does not exist.
    """
    root = Path(source).resolve()
    if not root.exists():
        raise InputError(f"{root} does not exist; give a folder with DICOM files, or one file")
    search = Search(root)
    skipped = search.skipped
    groups: dict[str, list[Frame]] = defaultdict(list)
    for result in apply(_read, search.files):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            groups[result[0].header.series_uid] += result
    for uid, frames in groups.items():
        groups[uid], twice = without_duplicates(frames)
        skipped += [Skipped(frame.header.name, reason) for frame, reason in twice]
    found: list[Series] = []
    for uid, frames, notes in join_single_slices(groups):
        for name, stack in _named(uid, stacks(frames, split_gaps=split_gaps, notes=notes)):
            result = _volume(name, uid, stack)
            if isinstance(result, Series):
                found.append(result)
            else:
                skipped.append(result)
    return sorted(found, key=lambda series: series.name), sorted(skipped, key=lambda item: item.name)


def _read(file: tuple[Path, str]) -> list[Frame] | Skipped:
    return read_header(*file)


def _named(uid: str, parts: list[Stack | LeftOut]) -> Iterator[tuple[str, Stack | LeftOut]]:
    for number, part in enumerate(parts, start=1):
        frame = part.frames[0] if isinstance(part, Stack) else part.frame
        name = f"series{frame.header.series_number:03d}-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"
        yield (f"{name}-{number}" if len(parts) > 1 else name), part


def _volume(name: str, uid: str, part: Stack | LeftOut) -> Series | Skipped:
    if isinstance(part, Stack):
        try:
            header = part.frames[0].header
            series = Series(name, uid, header.modality, part.frames, part.notes, header.patient_id)
            series.affine  # noqa: B018  # raises where the slices make no volume
            return series
        except InputError as error:
            part = LeftOut(part.frames[0], str(error))
    reason = f"{name}: {part.reason}"
    return Skipped(part.frame.header.name, reason, fault=part.fault, modality="MR", series_uid=uid, volume=name)
