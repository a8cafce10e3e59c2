"""Values of DICOM slices: every usual compression, rescaling, inverted grey scales, and damaged data."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import SYNTAXES, compress, series_uid, write_series
from pydicom.data import get_testdata_file

from data_prep.parallel import as_done
from kvseg_monai.dicom import apart, find_series
from kvseg_monai.errors import InputError

AFFINE = np.diag([-1.5, -1.5, 3, 1])
BUNDLED = ("", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless", "_padded")


def load(folder: Path) -> np.ndarray:
    (series,), _ = find_series(folder)
    return series.load()[0]


def make_voxels(kind: type = np.int16, shape: tuple = (7, 5, 4)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(kind)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_form_of_the_same_slice(name):
    """pydicom's own test files: one MR slice in every encoding that it comes in."""
    expected = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array
    found = load(Path(get_testdata_file(f"MR_small{name}.dcm", download=False)))
    np.testing.assert_array_equal(found[:, :, 0].T, expected)
    assert found.dtype == np.int16


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.uint8])
def test_lossless_compression(tmp_path, syntax, kind):
    voxels = (make_voxels(shape=(40, 30, 2)) % 200).astype(kind)
    for path in write_series(tmp_path, voxels, AFFINE):
        compress(path, SYNTAXES[syntax])
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    found = load(tmp_path)
    np.testing.assert_array_equal(found, voxels)
    assert found.dtype == kind


def test_lossless_and_plain_files_in_one_series(tmp_path):
    voxels = make_voxels(shape=(40, 30, 5))
    paths = write_series(tmp_path, voxels, AFFINE)
    for path in paths[1::2]:
        compress(path, SYNTAXES["JPEGLosslessProcess14_1"])
    np.testing.assert_array_equal(load(tmp_path), voxels)


def test_files_without_preamble(tmp_path):
    voxels = make_voxels()
    for path in write_series(tmp_path, voxels, AFFINE):
        content = path.read_bytes()
        dataset = pydicom.dcmread(path)
        size = dataset.file_meta.FileMetaInformationGroupLength
        path.write_bytes(content[132 + 12 + size :])
    np.testing.assert_array_equal(load(tmp_path), voxels)


def test_rescaling_is_applied_slice_by_slice(tmp_path):
    voxels = make_voxels()
    paths = write_series(tmp_path, voxels, AFFINE, RescaleSlope=2, RescaleIntercept=-10)
    dataset = pydicom.dcmread(paths[1])
    dataset.RescaleSlope = 0.5
    dataset.save_as(paths[1])
    expected = voxels * np.array([2, 0.5, 2, 2]) - 10
    found = load(tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_the_stored_type_stays_where_there_is_no_rescaling(tmp_path):
    write_series(tmp_path, make_voxels(np.uint16), AFFINE, RescaleSlope=1, RescaleIntercept=0)
    assert load(tmp_path).dtype == np.uint16


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, -1)])
def test_monochrome1_is_turned_over(tmp_path, kind, white):
    voxels = (make_voxels() % 200).astype(kind)
    write_series(tmp_path, voxels, AFFINE, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(load(tmp_path), (white - voxels.astype(int)).astype(kind))


# Damage.


def test_truncated_pixels_are_told():
    with pytest.raises(InputError, match=r"MR_truncated.dcm cannot be decoded .*less than expected.*copy it again"):
        load(Path(get_testdata_file("MR_truncated.dcm", download=False)))


@pytest.mark.parametrize("syntax", [None, *SYNTAXES])
def test_a_file_that_is_cut_off_is_told(tmp_path, syntax):
    paths = write_series(tmp_path, make_voxels(shape=(40, 30, 3)), AFFINE)
    for path in paths if syntax else ():
        compress(path, SYNTAXES[syntax])
    paths[1].write_bytes(paths[1].read_bytes()[:-300])
    with pytest.raises(InputError, match=r"IM0001 cannot be decoded .*copy it again"):
        load(tmp_path)


def test_a_decoder_that_complains_or_dies_takes_nothing_with_it(tmp_path):
    voxels = make_voxels(shape=(40, 30, 3))
    paths = write_series(tmp_path, voxels, AFFINE)
    for path in paths:
        compress(path, SYNTAXES["JPEGLosslessProcess14_1"])
    whole = bytearray(paths[1].read_bytes())
    paths[1].write_bytes(whole[:-200] + b"\xff\xd9" * 50 + whole[-100:])  # the picture ends too early
    with pytest.raises(InputError, match=r"IM0001 cannot be decoded .its JPEG data are damaged"):
        load(tmp_path)
    paths[1].write_bytes(whole)
    np.testing.assert_array_equal(load(tmp_path), voxels)
    apart._child(os.getpid()).kill()
    with pytest.raises(InputError, match=r"IM0000 cannot be decoded"):
        load(tmp_path)
    np.testing.assert_array_equal(load(tmp_path), voxels)


def test_a_forked_process_has_a_child_of_its_own(tmp_path):
    voxels = make_voxels(shape=(40, 30, 4))
    for path in write_series(tmp_path, voxels, AFFINE):
        compress(path, SYNTAXES["JPEGLosslessProcess14_1"])
    np.testing.assert_array_equal(load(tmp_path), voxels)
    for _, found in as_done(load, [tmp_path] * 4, workers=2):
        np.testing.assert_array_equal(found, voxels)


def test_the_child_stops_at_the_first_damaged_file():
    line = [sys.executable, "-m", "kvseg_monai.dicom.apart"]
    result = subprocess.run(line, input=b'"nowhere"\n"nowhere"\n', capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (1, b"")


def test_a_file_that_changed_is_told(tmp_path):
    paths = write_series(tmp_path, make_voxels(), AFFINE)
    (series,), _ = find_series(tmp_path)
    write_series(tmp_path, make_voxels(shape=(8, 5, 4)), AFFINE, SeriesInstanceUID=series_uid("new"))
    with pytest.raises(InputError, match=r"IM0000 changed while it was read; run again"):
        series.load()
    assert paths[0].exists()
