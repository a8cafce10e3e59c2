"""Broken DICOM, NIfTI, PNG and run-length files through the preparations, next to a valid scan.

Always a sentence or a right answer; never a traceback, a half-written file, or a word on who the patient is.
"""

import contextlib
import io
import json
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, SYNTAXES, compress, series_uid, write_enhanced, write_segmentation, write_series
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st
from made_raw import CLASSES, RawSource
from made_raw import prepare as prepare_raw
from made_sources import AFFINE, TABLE, prepare
from PIL import Image

from data_prep.uw_madison.rle import decode
from kvseg_monai.errors import InputError

fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
BYTE_CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)
CUTS = st.floats(0, 1)


def broken(content: bytes, change: float | list) -> bytes:
    """Cut to a share, or with bytes replaced."""
    if isinstance(change, float):
        return content[: int(change * len(content))]
    changed = bytearray(content)
    for place, value in change:
        changed[min(int(place * len(changed)), len(changed) - 1)] = value
    return bytes(changed)


@contextlib.contextmanager
def folder_of(contents: dict[str, bytes]) -> Iterator[Path]:
    """A folder ``in`` with these files, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            path = Path(folder, "in", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(folder)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(kind: str, folder: Path, *options: str) -> dict[str, nib.Nifti1Image]:
    """Prepare ``in``; return the images by name, after a look at all that a run must keep to."""
    target, text, refusal = folder / "out", io.StringIO(), None
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = prepare(kind, ["--source", str(folder / "in"), *options], target)
    except InputError as error:
        refusal = str(error)
    if refusal is not None:
        event("refused")
        assert "\n" not in refusal
        assert not list(target.rglob("*.nii.gz"))
        return {}
    summary = json.loads((target / "summary.json").read_text())
    event("left out" if code else "prepared")
    assert code == bool(summary["failed"])
    assert not [sentence for sentence in summary["failed"].values() if "\n" in sentence or len(sentence) < 20]
    assert not [word for word in PATIENT.values() if word in text.getvalue() + json.dumps(summary)]
    names = sorted(path.stem for path in (target / "records").glob("*.json"))
    images = {name: nib.load(target / "images" / f"{name}.nii.gz") for name in names}
    labels = [nib.load(path) for path in (target / "labels").glob("*.nii.gz")]
    assert len(list((target / "images").glob("*.nii.gz"))) == len(images) == summary["scans"]
    for image in (*images.values(), *labels):
        assert np.asarray(image.dataobj).shape == image.shape  # reads it all
        assert np.isfinite(image.affine).all()
    assert all(np.asarray(label.dataobj).max() <= 2 for label in labels)
    return images


# DICOM.

VALID = series_uid("valid")


def voxels(shape: tuple = (9, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)


@pytest.fixture(scope="module")
def dicom_sources(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Files of one series and, with ``valid``, of another, by how they are stored."""
    folder = tmp_path_factory.mktemp("dicom")
    labels = (voxels() % 3).astype(np.uint8)
    for kind in ("plain", "enhanced", "segmented", *SYNTAXES):
        valid = {"SeriesInstanceUID": VALID, "SeriesNumber": 1, "FrameOfReferenceUID": "1.2.3"}
        write_series(folder / kind / "valid", voxels(), AFFINE, **valid)
        if kind == "enhanced":
            write_enhanced(folder / kind / "bad", voxels(), AFFINE)
            continue
        shape = (40, 30, 2) if kind in SYNTAXES else (9, 8, 3)
        paths = write_series(folder / kind / "all", voxels(shape), AFFINE)
        for path in paths if kind in SYNTAXES else ():
            compress(path, SYNTAXES[kind])
        (folder / kind / "all" / "IM0001").rename(folder / kind / "bad")
        if kind == "segmented":
            (folder / kind / "bad").rename(folder / kind / "all" / "IM0001")
            write_segmentation(folder / kind / "bad", labels, AFFINE, {1: "a", 2: "b"}, SeriesInstanceUID="1.2.4")
    return {kind: contents_of(folder / kind) for kind in ("plain", "enhanced", "segmented", *SYNTAXES)}


def check_dicom(contents: dict[str, bytes]) -> None:
    with folder_of(contents) as folder:
        images = outcome("dicom", folder)
        valid = [name for name in images if name.startswith("series001")]
        if images:
            assert np.array_equal(np.asarray(images[valid[0]].dataobj), voxels())
        stored = list(planes(folder / "in"))
        for name in images.keys() - set(valid[:1]):
            found = np.asarray(images[name].dataobj)
            if (
                stored and found.dtype.kind in "iu"
            ):  # neither rescaled nor, as damaged headers may ask for, inverted or shifted
                assert all(any(np.array_equal(plane.T, one) for one in stored) for plane in np.moveaxis(found, 2, 0))


def planes(folder: Path) -> Iterator[np.ndarray]:
    """What pydicom decodes."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            array = dataset.pixel_array
            bits = [dataset.get(keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit")]
            if dataset.get("PhotometricInterpretation") == "MONOCHROME1" or bits != [16, 16, 15]:
                return
            yield from array if array.ndim == 3 else array[None]


@settings(fuzz, max_examples=90)
@given(kind=st.sampled_from(["plain", "enhanced", "segmented"]), change=CUTS | BYTE_CHANGES)
def test_dicom_files_with_changed_bytes_or_cut_off(dicom_sources, kind, change):
    contents = dicom_sources[kind]
    check_dicom(contents | {"bad": broken(contents["bad"], change)})


@settings(fuzz, max_examples=60)
@given(kind=st.sampled_from(["RLELossless", "JPEG2000Lossless", "JPEGLSLossless"]), change=CUTS | BYTE_CHANGES)
def test_compressed_slices_that_are_damaged(dicom_sources, kind, change):
    contents = dicom_sources[kind]
    start = contents["bad"].index(b"\xe0\x7f\x10\x00")  # the pixel data; the header has its own test
    check_dicom(contents | {"bad": contents["bad"][:start] + broken(contents["bad"][start:], change)})


@settings(fuzz, max_examples=8)
@given(change=CUTS | BYTE_CHANGES)
def test_slices_that_are_decoded_isolated(dicom_sources, change):
    contents = dicom_sources["JPEGLosslessProcess14_1"]
    start = contents["bad"].index(b"\xe0\x7f\x10\x00")
    check_dicom(contents | {"bad": contents["bad"][:start] + broken(contents["bad"][start:], change)})


ELEMENTS = {
    "US": ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    "DS": ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope"),
    "IS": ("NumberOfFrames", "SeriesNumber", "InstanceNumber"),
    "CS": ("Modality", "PhotometricInterpretation", "ImageType"),
    "UI": ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID"),
}
TEXTS = st.sampled_from(["", "MR", "CT", "LOCALIZER", "MONOCHROME1", "RGB", "PALETTE COLOR", "1.2.3", "x" * 60])
NUMBERS = st.sampled_from(["nan", "inf", "-inf", "0", "1e300", "-1", "1e-9", "0.5", "", "seven"])
VALUES = {
    "US": st.sampled_from([0, 1, 2, 3, 7, 8, 9, 12, 16, 17, 32, 33, 255, 65535]),
    "DS": NUMBERS | st.lists(NUMBERS, min_size=2, max_size=6).map("\\".join),
    "IS": st.sampled_from(["0", "-1", "2", "99999", "2147483647", "x", ""]),
    "CS": TEXTS,
    "UI": TEXTS,
}


@st.composite
def headers(draw: st.DrawFn) -> tuple[str, str, object]:
    kind = draw(st.sampled_from(sorted(ELEMENTS)))
    return kind, draw(st.sampled_from(ELEMENTS[kind])), draw(st.none() | VALUES[kind])


@settings(fuzz, max_examples=90)
@given(kind=st.sampled_from(["plain", "enhanced", "segmented", "RLELossless"]), header=headers())
def test_dicom_headers_that_make_no_sense(dicom_sources, kind, header):
    vr, keyword, value = header
    contents = dicom_sources[kind]
    dataset = pydicom.dcmread(io.BytesIO(contents["bad"]))
    if keyword in dataset:
        del dataset[keyword]
    if value is not None:
        raw = struct.pack("<H", value) if vr == "US" else value.encode() + b" " * (len(value) % 2)
        tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
        dataset._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(stream, dataset)
    except Exception:
        reject()  # pydicom writes no such file
    check_dicom(contents | {"bad": stream.getvalue()})


# NIfTI.

FIELDS = {"dim": (40, "h", 8), "datatype": (70, "h", 2), "pixdim": (76, "f", 8), "scl": (112, "f", 2)}
FIELDS |= {"form": (252, "h", 2), "srow": (280, "f", 12), "vox_offset": (108, "f", 1), "magic": (344, "h", 2)}
WILD = {"h": st.sampled_from([-1, 0, 1, 2, 4, 16, 64, 128, 512, 1536, 32767]), "f": st.floats(width=32)}


@st.composite
def nifti_fields(draw: st.DrawFn) -> tuple[int, bytes]:
    place, kind, count = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
    return place + draw(st.integers(0, count - 1)) * struct.calcsize(kind), struct.pack(f"<{kind}", draw(WILD[kind]))


@settings(fuzz, max_examples=90)
@given(part=st.sampled_from(["images", "labels"]), change=CUTS | BYTE_CHANGES | nifti_fields())
def test_broken_nifti(part, change):
    arrays = {"images": voxels(), "labels": (voxels() % 3).astype(np.uint8)}
    whole = {kind: nib.Nifti1Image(array, AFFINE).to_bytes() for kind, array in arrays.items()}
    bad = bytearray(whole[part])
    if isinstance(change, tuple):
        bad[change[0] : change[0] + len(change[1])] = change[1]
    else:
        bad = broken(bytes(bad), change)
    contents = {f"{kind}/valid.nii": content for kind, content in whole.items()}
    contents |= {f"{kind}/bad.nii": content for kind, content in whole.items()} | {f"{part}/bad.nii": bytes(bad)}
    with folder_of(contents) as folder:
        images = outcome("nifti", folder, "--patient", "([a-z]+)", *TABLE)
        assert np.array_equal(np.asarray(images["valid"].dataobj), voxels())
        if "bad" in images:
            source = nib.load(folder / "in" / "images" / "bad.nii")
            found = np.asarray(images["bad"].dataobj, dtype=np.float32)
            with np.errstate(all="ignore"):
                expected = np.asarray(source.dataobj).astype(np.float32).reshape(found.shape)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_allclose(images["bad"].affine, source.affine, rtol=1e-4, atol=1e-3)


# PNG.


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@st.composite
def png_headers(draw: st.DrawFn) -> tuple[int, int]:
    """Place and value of a byte of IHDR, whose check sum is then made right."""
    return draw(st.integers(16, 28)), draw(st.sampled_from([0, 1, 2, 3, 4, 6, 8, 16, 255]))


@settings(fuzz, max_examples=90)
@given(part=st.sampled_from(["images", "masks"]), change=CUTS | BYTE_CHANGES | png_headers())
def test_broken_png(part, change):
    whole = {"images": png(voxels()[..., 0].astype(np.uint16)), "masks": png((voxels()[..., 0] % 3).astype(np.uint8))}
    if isinstance(change, tuple):
        bad = bytearray(whole[part])
        bad[change[0]] = change[1]
        bad[29:33] = struct.pack(">I", zlib.crc32(bad[12:29]))
    else:
        bad = broken(whole[part], change)
    contents = {f"{kind}/{name}.png": content for kind, content in whole.items() for name in ("valid", "bad")}
    with folder_of(contents | {f"{part}/bad.png": bytes(bad)}) as folder:
        images = outcome("png_pairs", folder, "--patient", "([a-z]+)", "--spacing", "1.5", *TABLE)
        assert np.array_equal(np.asarray(images["valid"].dataobj)[..., 0].T, voxels()[..., 0])
        if "bad" in images:
            with Image.open(folder / "in" / "images" / "bad.png") as source:
                assert np.array_equal(np.asarray(images["bad"].dataobj)[..., 0].T, np.asarray(source))


# Run-length texts.


@settings(fuzz, max_examples=60)
@given(text=st.text("0123456789 -.,e\x00é", max_size=12) | st.lists(st.integers(-2, 26), max_size=6).map(str))
def test_broken_run_lengths(text):
    text = text.strip("[]").replace(",", "")
    with tempfile.TemporaryDirectory() as folder:
        raw = RawSource(Path(folder, "raw")).add("case2_day5", slices=1)
        raw.label("case2_day5", 1, CLASSES[2], text)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(InputError):
            prepare_raw(raw.save(), Path(folder, "out"))
        if not Path(folder, "out").exists():
            with pytest.raises(InputError, match=r"run|whole numbers|pairs"):
                decode(text, (4, 6))
            return
        label = np.asarray(nib.load(Path(folder, "out", "labels", "case2_day5.nii.gz")).dataobj)
        assert np.array_equal(label[..., 0].T == 3, decode(text, (4, 6)))
