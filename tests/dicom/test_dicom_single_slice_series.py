"""Slices with a SeriesInstanceUID each: one volume where they are plainly one, never many in silence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import series_uid, write_series
from test_dicom import make_voxels, only, same_volume, spoil

from kvseg_monai.dicom import find_series
from kvseg_monai.dicom.segmentation import make_segmentation
from kvseg_monai.errors import InputError
from kvseg_monai.utils.labels import Code

AFFINE = np.diag([-1.5, -1.5, 3, 1])


def write_slices(
    folder: Path, *, seed: int = 0, values: Callable[[int], dict] = lambda _: {}, **common: object
) -> None:
    """A series whose slices have a SeriesInstanceUID each, and ``values`` of their number."""
    for number, path in enumerate(write_series(folder, make_voxels(seed=seed), AFFINE, **common)):
        spoil(path, SeriesInstanceUID=series_uid(f"{folder} {number}"), **values(number))


def test_they_are_joined(tmp_path):
    write_slices(tmp_path, SeriesDescription="T2")
    series = only(tmp_path)
    same_volume(series, make_voxels(), AFFINE)
    assert series.notes == ("6 slices with a SeriesInstanceUID each, joined",)
    again = only(tmp_path)
    assert (again.name, again.uid) == (series.name, min(frame.header.series_uid for frame in series.frames))


def test_volumes_of_one_are_distinguished(tmp_path):
    for time in range(3):
        write_slices(tmp_path / str(time), seed=time, TemporalPositionIdentifier=time)
    found, skipped = find_series(tmp_path)
    for time, series in enumerate(found):
        same_volume(series, make_voxels(seed=time), AFFINE)
    assert (len(found), skipped) == (3, [])


def test_a_dicom_seg_cannot_refer_to_them(tmp_path):
    write_slices(tmp_path)
    code = Code("10200004", "SCT", "Liver")
    with pytest.raises(
        InputError, match="has a SeriesInstanceUID for each slice, and a DICOM SEG refers to one series"
    ):
        make_segmentation(np.ones((7, 5, 6)), only(tmp_path), classes=[("liver", code)], algorithm=None)


NOT_ONE_SERIES = {  # what is no series of one
    "study": lambda number: {"StudyInstanceUID": series_uid(f"study{number}")},
    "frame of reference": lambda number: {"FrameOfReferenceUID": series_uid(f"frame{number}")},
    "grid": lambda number: {"PixelSpacing": [1 + number / 4, 1.5]},
    "contrast": lambda number: {"EchoTime": number + 1.5},
    "places": lambda number: {"ImagePositionPatient": [0, 0, number**2]},
    "no number": lambda _: {"SeriesNumber": None, "InstanceNumber": 1},
}


@pytest.mark.parametrize("reason", NOT_ONE_SERIES)
def test_they_are_reported_where_they_are_not_plainly_one(tmp_path, reason):
    write_slices(tmp_path, values=NOT_ONE_SERIES[reason])
    found, skipped = find_series(tmp_path)
    assert [series.shape for series in found] == [(7, 5, 1)] * 6
    note = "one of 6 single slices of one series number, with a SeriesInstanceUID each, not joined"
    assert {series.notes for series in found} == {(note,)}
    assert skipped == []


@pytest.mark.parametrize("keyword", ["SeriesNumber", "SeriesDescription", "PatientID"])
def test_single_slices_of_other_series_are_left_alone(tmp_path, keyword):
    write_slices(tmp_path, values=lambda number: {keyword: f"{number}"})
    found, _ = find_series(tmp_path)
    assert [series.notes for series in found] == [()] * 6


def test_series_of_several_slices_are_never_joined(tmp_path):
    upper = AFFINE.copy()
    upper[2, 3] = 18
    for name, affine in (("lower", AFFINE), ("upper", upper)):
        write_series(tmp_path / name, make_voxels(), affine, SeriesInstanceUID=series_uid(name))
    found, _ = find_series(tmp_path)
    assert [(series.shape, series.notes) for series in found] == [((7, 5, 6), ())] * 2
