"""Values of DICOM slices: every usual compression, rescaling, inverted grey scales, and damaged data."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import SYNTAXES, compress, series_uid, write_series
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from data_prep.common.parallel import as_done
from kvseg_monai.dicom import find_series, isolated
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


# Values in some of the bits.

LAYOUTS = {  # BitsStored, HighBit, PixelRepresentation
    "unsigned": (12, 11, 0),
    "signed": (12, 11, 1),
    "left-justified": (12, 15, 0),
    "left-justified and signed": (12, 15, 1),
    "in the middle": (10, 12, 1),
    "of a byte": (6, 7, 0),
    "of four bytes": (20, 31, 1),
}


def in_bits(folder: Path, layout: str, *, syntax: str | None = None, **values: object) -> np.ndarray:
    """Write values in some of the bits, with dirt in the others; return the values."""
    stored, high, signed = LAYOUTS[layout]
    size = 8 if high < 8 else 16 if high < 16 else 32
    rng, low = np.random.default_rng(1), high + 1 - stored
    expected = rng.integers(-(1 << stored - 1) if signed else 0, 1 << stored - signed, (16, 12, 3))
    mask = (1 << stored) - 1 << low
    dirt = rng.integers(0, 1 << size, expected.shape) & ~mask
    raw = ((expected << low & mask) | dirt).astype(f"u{size // 8}")
    for path in write_series(folder, raw.view(f"{'i' if signed else 'u'}{size // 8}"), AFFINE, **values):
        if syntax:
            compress(path, SYNTAXES[syntax])
        dataset = pydicom.dcmread(path)
        dataset.BitsStored, dataset.HighBit = stored, high
        dataset.save_as(path)
    return expected


@pytest.mark.parametrize(
    ("layout", "syntax"),  # a compressed stream holds at most 16 bits
    [(layout, syntax) for layout in LAYOUTS for syntax in (None, *SYNTAXES) if not syntax or "four" not in layout],
)
def test_only_the_stored_bits_count(tmp_path, layout, syntax):
    expected = in_bits(tmp_path, layout, syntax=syntax)
    np.testing.assert_array_equal(load(tmp_path), expected)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_stream_of_fewer_bits_is_not_shifted_again(tmp_path, syntax):
    """The header says left-justified, as before compression; the stream holds 12 bits."""
    voxels = make_voxels(np.uint16, (70, 64, 2))
    for path in write_series(tmp_path, voxels, AFFINE):
        change(path, BitsStored=12, HighBit=11)
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax)
        dataset.HighBit = 15
        dataset.save_as(path)
    np.testing.assert_array_equal(load(tmp_path), voxels)


def change(path: Path, **values: object) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.mark.parametrize("high", [0, 7, 16, 31])
def test_a_highest_bit_that_cannot_be_is_not_believed(tmp_path, high):
    voxels = make_voxels(np.uint16)
    for path in write_series(tmp_path, voxels, AFFINE):
        change(path, BitsStored=12, HighBit=high)
    np.testing.assert_array_equal(load(tmp_path), voxels)


@pytest.mark.parametrize("layout", ["unsigned", "left-justified", "left-justified and signed"])
def test_monochrome1_is_turned_over_within_the_stored_bits(tmp_path, layout):
    expected = in_bits(tmp_path, layout, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(load(tmp_path), -1 - expected if "and signed" in layout else 4095 - expected)


def test_rescaling_comes_after_shift_and_sign(tmp_path):
    expected = in_bits(tmp_path, "left-justified and signed", RescaleSlope=0.5, RescaleIntercept=3)
    np.testing.assert_array_equal(load(tmp_path), expected * 0.5 + 3)


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_floating_point_values(tmp_path, keyword, kind):
    voxels = make_voxels().astype(kind) / 7
    for index, path in enumerate(write_series(tmp_path, make_voxels(), AFFINE)):
        dataset = pydicom.dcmread(path)
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.BitsAllocated = 8 * voxels.itemsize
        setattr(dataset, keyword, np.ascontiguousarray(voxels[:, :, index].T).tobytes())
        dataset.save_as(path)
    found = load(tmp_path)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, voxels)


# Damage.


def test_truncated_pixels_are_reported():
    with pytest.raises(InputError, match=r"MR_truncated.dcm cannot be decoded .*less than expected.*copy it again"):
        load(Path(get_testdata_file("MR_truncated.dcm", download=False)))


@pytest.mark.parametrize("syntax", [None, *SYNTAXES])
def test_a_file_that_is_cut_off_is_reported(tmp_path, syntax):
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
    isolated._child(os.getpid()).kill()
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


def test_lossy_jpeg_of_12_bits_is_not_called_damaged(tmp_path):
    for path in write_series(tmp_path, make_voxels(), AFFINE):
        change(path, BitsStored=12, HighBit=11)
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = uid.JPEGExtended12Bit
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset.save_as(path)
    with pytest.raises(InputError, match=r"IM0000 is compressed as lossy JPEG of 12 bits, and no decoder here reads"):
        load(tmp_path)


def test_the_child_stops_at_the_first_damaged_file():
    line = [sys.executable, "-m", "kvseg_monai.dicom.isolated"]
    result = subprocess.run(line, input=b'"nowhere"\n"nowhere"\n', capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (1, b"")


def test_a_file_that_changed_is_reported(tmp_path):
    paths = write_series(tmp_path, make_voxels(), AFFINE)
    (series,), _ = find_series(tmp_path)
    write_series(tmp_path, make_voxels(shape=(8, 5, 4)), AFFINE, SeriesInstanceUID=series_uid("new"))
    with pytest.raises(InputError, match=r"IM0000 changed while it was read; run again"):
        series.load()
    assert paths[0].exists()
