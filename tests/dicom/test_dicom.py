"""MR series in folders as they come: found, distinguished, put in the order of their places."""

import itertools
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, series_uid, write_enhanced, write_series
from pydicom.data import get_testdata_file

from kvseg_monai.dicom import find_series
from kvseg_monai.dicom.listing import list_volumes, volume_at
from kvseg_monai.dicom.skipped import sentences
from kvseg_monai.errors import InputError

OBLIQUE = np.array([[1.2, -0.3, 0.8, -50], [0.4, 1.1, -0.6, 30], [-0.2, 0.5, 3.9, 12], [0, 0, 0, 1]])


def orthogonal(affine: np.ndarray) -> np.ndarray:
    """The nearest affine whose axes are at right angles, with the same lengths."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / lengths)
    return np.block([[u @ v * lengths, affine[:3, 3:]], [np.array([[0, 0, 0, 1.0]])]])


def make_voxels(shape=(7, 5, 6), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def only(folder: Path, **options):
    found, skipped = find_series(folder, **options)
    assert len(found) == 1, [str(item) for item in skipped]
    return found[0]


def same_volume(series, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel is where it was. Along the slices DICOM may only run along the normal, so it may be turned round."""
    found, where = series.load()
    assert found.shape == series.shape
    if np.linalg.det(affine[:3, :3]) < 0:
        voxels = voxels[:, :, ::-1]
        turn = np.diag([1.0, 1, -1, 1])
        turn[2, 3] = voxels.shape[2] - 1
        affine = affine @ turn
    np.testing.assert_array_equal(found, voxels)
    np.testing.assert_allclose(where, affine, atol=1e-4)


AXES = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize("oblique", [False, True])
def test_all_permutations_and_flips_of_the_axes(tmp_path, oblique):
    """48 orientations, each with another spacing on every axis and with shuffled names and instance numbers."""
    assert len(AXES) == 48
    rng = np.random.default_rng(1)
    base = orthogonal(OBLIQUE) if oblique else np.diag([1.0, 1, 1, 1])
    for number, (order, signs) in enumerate(AXES):
        affine = base.copy()
        affine[:3, :3] = base[:3, :3][:, order] / np.linalg.norm(base[:3, :3], axis=0)[list(order)] * signs
        affine[:3, :3] *= (0.9, 1.3, 3.5)
        voxels = make_voxels((5, 4, 3), seed=number)
        names = [f"file{k}" for k in rng.permutation(3)]
        write_series(tmp_path / str(number), voxels, affine, names=names, numbers=rng.permutation(3))
        same_volume(only(tmp_path / str(number)), voxels, affine)
        write_enhanced(tmp_path / str(number) / "all", voxels, affine, order=rng.permutation(3))
        same_volume(only(tmp_path / str(number) / "all"), voxels, affine)


@pytest.mark.parametrize(("width", "height"), [(266, 266), (360, 310), (276, 276), (234, 234)])
@pytest.mark.parametrize("slices", [1, 2, 9])
def test_native_sizes(tmp_path, width, height, slices):
    voxels, affine = make_voxels((width, height, slices)), np.diag([-1.5, -1.63, 3, 1])
    write_series(tmp_path, voxels, affine)
    same_volume(only(tmp_path), voxels, affine)


def test_160_slices(tmp_path):
    voxels = make_voxels((12, 9, 160))
    write_series(tmp_path, voxels, orthogonal(OBLIQUE), numbers=np.random.default_rng(0).permutation(160))
    same_volume(only(tmp_path), voxels, orthogonal(OBLIQUE))


def test_spacing_comes_from_the_positions_and_of_a_single_slice_from_its_header(tmp_path):
    write_series(tmp_path / "many", make_voxels(), np.diag([-1, -1, 5, 1]), SliceThickness=4.0)
    assert np.linalg.norm(only(tmp_path / "many").affine[:3, 2]) == pytest.approx(5)
    write_series(tmp_path / "one", make_voxels((4, 4, 1)), np.diag([-1, -1, 4, 1]), SpacingBetweenSlices=6.0)
    assert np.linalg.norm(only(tmp_path / "one").affine[:3, 2]) == pytest.approx(6)
    write_series(tmp_path / "none", make_voxels((4, 4, 1)), np.diag([-1, -1, 4, 1]), SliceThickness=None)
    _, skipped = find_series(tmp_path / "none")
    assert "a single slice with neither SpacingBetweenSlices nor SliceThickness" in skipped[0].reason


def test_a_messy_folder(tmp_path):
    """Two patients and a CT, nested, without extensions, with a localizer, copies, a report and notes."""
    voxels, affine = make_voxels(), np.diag([-1.5, -1.5, 3, 1])
    first = write_series(tmp_path / "in" / "a" / "b", voxels, affine)
    other = {"PatientID": "other", "SeriesInstanceUID": series_uid("other"), "SeriesNumber": 11}
    write_series(tmp_path / "in" / "c", make_voxels(seed=1), affine, **other)
    write_series(tmp_path / "in" / "ct", voxels, affine, Modality="CT", SeriesInstanceUID=series_uid("ct"))
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": series_uid("scout")}
    write_series(tmp_path / "in" / "scout", voxels, affine, **scout)
    shutil.copy(first[2], tmp_path / "in" / "z.dcm")
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), tmp_path / "in" / "report")
    (tmp_path / "in" / "notes.txt").write_text("MR of a knee")
    found, skipped = find_series(tmp_path / "in")
    assert [series.name[:9] for series in found] == ["series004", "series011"]
    same_volume(found[0], voxels, affine)
    assert [series.patient_id for series in found] == ["MRN-4711", "other"]
    assert not any(item.fault for item in skipped)
    assert sentences(skipped) == [
        "6 files: a localizer, mosaic or projection (ImageType) (first: scout/IM0000)",
        "1 file: a second copy of a slice (first: z.dcm)",
        "6 files: modality CT, only MR is read (first: ct/IM0000)",
        "1 file: modality SR, only MR is read (first: report)",
        "1 file: not a DICOM file (1 .txt) (first: notes.txt)",
    ]


def test_of_two_copies_the_whole_one_is_taken(tmp_path):
    voxels, affine = make_voxels(), np.diag([-1.5, -1.5, 3, 1])
    paths = write_series(tmp_path, voxels, affine)
    (tmp_path / "A").write_bytes(paths[3].read_bytes()[:-20])
    same_volume(only(tmp_path), voxels, affine)


def test_a_dicomdir_is_not_followed(tmp_path):
    root = Path(get_testdata_file("DICOMDIR", download=False)).parent
    shutil.copy(root / "DICOMDIR", tmp_path)
    shutil.copytree(root / "98892003", tmp_path / "98892003")
    found, skipped = find_series(tmp_path)
    assert next(str(item) for item in skipped if item.name == "DICOMDIR").endswith("never the paths that it holds")
    assert {series.shape for series in found} == {(16, 16, 1)}
    assert len(found) == 10
    assert sum("projection" in item.reason for item in skipped) == 7


# More than one volume in a series.


def test_echoes_at_the_same_place_become_volumes(tmp_path):
    affine, echoes = np.diag([-1.5, -1.5, 3, 1]), [make_voxels(seed=seed) for seed in (0, 1)]
    for time, voxels in zip((12.5, 2.5), echoes, strict=True):
        write_series(tmp_path / str(time), voxels, affine, EchoTime=time, SeriesInstanceUID=series_uid("one"))
    found, skipped = find_series(tmp_path)
    assert not skipped
    assert [series.name[-2:] for series in found] == ["-1", "-2"]
    for series, voxels in zip(found, reversed(echoes), strict=True):
        same_volume(series, voxels, affine)
        assert series.notes == ("2 echo times at the same place",)


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "AcquisitionNumber"])
def test_phases_and_echoes_together(tmp_path, keyword):
    affine = np.diag([-1.5, -1.5, 3, 1])
    for phase, time in itertools.product((1, 2, 3), (2.5, 5.0)):
        values = {keyword: phase, "EchoTime": time, "SeriesInstanceUID": series_uid("one")}
        write_series(tmp_path / f"{phase}{time}", make_voxels(seed=phase * 10 + int(time)), affine, **values)
    found, _ = find_series(tmp_path)
    assert len(found) == 6
    assert len(found[0].notes) == 2
    same_volume(found[1], make_voxels(seed=22), affine)  # the shorter echo's second phase


def test_repetitions_that_only_their_order_distinguishes(tmp_path):
    affine = np.diag([-1.5, -1.5, 3, 1])
    for repetition in range(3):
        numbers = range(repetition, 18, 3)
        name = f"r{9 - repetition}"
        write_series(tmp_path / name, make_voxels(seed=repetition), affine, numbers=numbers, SeriesInstanceUID="1.2.3")
    found, _ = find_series(tmp_path)
    assert [series.notes for series in found] == [("3 repetitions by InstanceNumber at the same place",)] * 3
    for repetition, series in enumerate(found):
        same_volume(series, make_voxels(seed=repetition), affine)


def test_slices_that_nothing_distinguishes_are_refused(tmp_path):
    for name in "ab":
        write_series(tmp_path / name, make_voxels(), np.diag([-1.5, -1.5, 3, 1]), numbers=[1] * 6)
    found, skipped = find_series(tmp_path)
    assert not found
    assert "2 slices lie at the same place and nothing in their headers distinguishes them" in skipped[0].reason
    assert skipped[0].fault


def test_orientations_sizes_and_spacings_become_volumes(tmp_path):
    uid = {"SeriesInstanceUID": series_uid("one")}
    grids = [(np.diag([-1.5, -1.5, 3, 1]), (7, 5, 6)), (orthogonal(OBLIQUE), (7, 5, 6))]
    grids += [(np.diag([-1.5, -1.5, 3, 1]), (8, 5, 6)), (np.diag([-1.2, -1.5, 3, 1]), (7, 5, 6))]
    for number, (affine, shape) in enumerate(grids):
        write_series(tmp_path / str(number), make_voxels(shape, number), affine, **uid)
    found, skipped = find_series(tmp_path)
    assert (len(found), skipped) == (4, [])
    assert {series.notes for series in found} == {("4 grids (orientation, size or spacing)",)}


def test_stations_side_by_side_become_volumes(tmp_path):
    """Two coronal blocks of one series, one below the other, have the same places along the normal."""
    upper = np.array([[-1.5, 0, 0, 0], [0, 0, 4.0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1]])
    lower = upper.copy()
    lower[2, 3] = -300
    for name, affine in (("upper", upper), ("lower", lower)):
        write_series(tmp_path / name, make_voxels(seed=len(name)), affine, SeriesInstanceUID="1.2.3")
    found, _ = find_series(tmp_path)
    assert len(found) == 2
    assert {round(series.affine[2, 3]) for series in found} == {0, -300}
    assert found[0].notes == ("2 fields of view at the same place",)


# Slices that make no volume.


def spoil(path: Path, **values) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def move(paths: list[Path], index: int, way: tuple) -> None:
    at = pydicom.dcmread(paths[index]).ImagePositionPatient
    spoil(paths[index], ImagePositionPatient=[float(a) + b for a, b in zip(at, way, strict=True)])


def shear(paths: list[Path]) -> None:
    for index in range(len(paths)):
        move(paths, index, (0, 0.5 * index, 0))


SPOILT = {
    "missing slice": (lambda paths: paths[2].unlink(), "slices are missing: slice 2 and the next are 6.00 mm apart"),
    "unequal spacing": (lambda paths: move(paths, 2, (0, 0, 1)), "slices are unequally spaced .2.00 to 4.00 mm."),
    "out of line": (lambda paths: move(paths, 2, (1, 0, 0)), "slices are not in line"),
    "sheared": (shear, "slices are sheared"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_slices_that_make_no_volume_are_reported(tmp_path, fault):
    change, sentence = SPOILT[fault]
    change(write_series(tmp_path / "bad", make_voxels(), np.diag([-1.5, -1.5, 3, 1])))
    write_series(tmp_path / "good", make_voxels(), np.diag([-1.5, -1.5, 3, 1]), SeriesInstanceUID="1.2.3")
    found, skipped = find_series(tmp_path)
    assert len(found) == 1
    assert [item.fault for item in skipped] == [True]
    assert skipped[0].name == "bad/IM0000"
    assert re.search(sentence, skipped[0].reason)


def test_rounded_positions_are_even_enough(tmp_path):
    paths = write_series(tmp_path, make_voxels(), orthogonal(OBLIQUE))
    for path in paths:
        spoil(path, ImagePositionPatient=[round(v, 2) for v in pydicom.dcmread(path).ImagePositionPatient])
    np.testing.assert_allclose(only(tmp_path).affine, orthogonal(OBLIQUE), atol=0.02)


def test_parts_between_gaps_on_request(tmp_path):
    paths = write_series(tmp_path, make_voxels((4, 4, 9)), np.diag([-1.5, -1.5, 3, 1]))
    paths[3].unlink()
    found, skipped = find_series(tmp_path, split_gaps=True)
    assert [series.shape[2] for series in found] == [3, 5]
    assert found[0].notes == ("2 parts between gaps",)
    assert not skipped


HEADERS = {
    "ImagePositionPatient": (None, "ImagePositionPatient holds 0 numbers"),
    "ImageOrientationPatient": ([1, 0, 0, 1, 0, 0], "no two unit vectors at a right angle"),
    "PixelSpacing": ([0, 1], "it must be above 0 mm"),
    "Rows": (0, "Rows is 0; it must be at least 1"),
    "SeriesInstanceUID": (None, "has no SeriesInstanceUID"),
    "NumberOfFrames": (3, "holds 3 frames and says of 0 where they lie"),
}


@pytest.mark.parametrize("keyword", HEADERS)
def test_headers_that_make_no_slice_are_reported(tmp_path, keyword):
    value, sentence = HEADERS[keyword]
    (path,) = write_series(tmp_path, make_voxels((4, 4, 1)), np.diag([-1.5, -1.5, 3, 1]))
    spoil(path, **{keyword: value})
    found, skipped = find_series(tmp_path)
    assert not found
    assert sentence in skipped[0].reason
    assert skipped[0].fault


# Nothing identifies the patient.


def test_names_notes_and_logs_hold_no_identity(tmp_path, caplog, recwarn):
    paths = write_series(tmp_path, make_voxels(), np.diag([-1.5, -1.5, 3, 1]), PatientBirthDate="19700203")
    paths[0].write_bytes(paths[0].read_bytes().replace(b"19700203", b"not-date"))
    broken = write_series(tmp_path / "x", make_voxels(), np.diag([-1.5, -1.5, 3, 1]), SeriesInstanceUID="1.2.3")
    broken[1].unlink()
    with caplog.at_level(logging.DEBUG):
        listed = list_volumes(tmp_path)
    _, skipped = find_series(tmp_path)
    with pytest.raises(InputError, match=r"x/IM0000: series004-\w+: slices are missing") as refused:
        volume_at(next(path for path in listed if path.endswith(skipped[-1].volume)))
    text = caplog.text + repr(listed) + repr(skipped) + repr(volume_at(listed[0]).frames) + str(refused.value)
    assert not [secret for secret in (*PATIENT.values(), "not-date") if secret in text]
    assert not recwarn.list


# Paths of volumes.


def test_a_volume_is_found_by_its_path(tmp_path):
    voxels, affine = make_voxels(), np.diag([-1.5, -1.5, 3, 1])
    write_series(tmp_path / "in" / "a", voxels, affine)
    enhanced = {"SeriesInstanceUID": series_uid("e"), "SeriesNumber": 5}
    write_enhanced(tmp_path / "in" / "b", make_voxels(seed=2), affine, **enhanced)
    listed = list_volumes(tmp_path / "in")
    assert [Path(path).parent for path in listed] == [tmp_path / "in"] * 2
    assert all(volume_at(path) is volume_at(path) for path in listed)
    same_volume(volume_at(tmp_path / "in" / "a"), voxels, affine)
    same_volume(volume_at(tmp_path / "in" / "b"), make_voxels(seed=2), affine)
    assert volume_at(tmp_path / "in" / "a" / "IM0000").shape == (7, 5, 1)


def test_paths_that_mean_no_volume(tmp_path):
    write_series(tmp_path / "a", make_voxels(), np.diag([-1.5, -1.5, 3, 1]))
    write_series(tmp_path / "b", make_voxels(), np.diag([-1.5, -1.5, 3, 1]), SeriesInstanceUID="1.2.3")
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match=r"holds 2 MR volumes .series004-"):
        volume_at(tmp_path)
    with pytest.raises(InputError, match=r"holds no MR volume .it is empty."):
        volume_at(tmp_path / "c")
    with pytest.raises(InputError, match=r"series9 does not exist, nor does .* hold a DICOM volume of that name"):
        volume_at(tmp_path / "series9")
    with pytest.raises(InputError, match=r"does not exist; give a folder with DICOM files"):
        find_series(tmp_path / "nowhere")


def test_headers_come_in_the_order_of_the_slices(tmp_path):
    write_series(tmp_path, make_voxels(), np.diag([-1.5, -1.5, 3, 1]), names=list("fbdace"), numbers=[3, 1, 2, 6, 5, 4])
    series = only(tmp_path)
    headers = series.datasets()
    assert [float(header.ImagePositionPatient[2]) for header in headers] == [0, 3, 6, 9, 12, 15]
    assert "PixelData" not in headers[0]
    series.paths[0].unlink()
    with pytest.raises(InputError, match=r"cannot be read .FileNotFoundError.; restore it"):
        series.datasets()
