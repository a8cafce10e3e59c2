"""DICOM folders as they come, prepared: messy ones, their segmentations, and nothing on who the patient is."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import (
    PATIENT,
    SYNTAXES,
    compress,
    reference,
    series_uid,
    write_enhanced,
    write_segmentation,
    write_series,
)
from made_sources import prepare
from PIL import Image
from pydicom.data import get_testdata_file
from support import ROOT

from kvseg_monai.errors import InputError

AFFINE = np.diag([-1.5, -1.6, 3, 1])
SEGMENTS = {1: "Large Bowel", 2: "stomach"}
FLIPS = {
    "as it is": np.diag([1.0, 1, 1, 1]),
    "turned round": np.array([[-1.0, 0, 0, 6], [0, -1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "from behind": np.array([[-1.0, 0, 0, 6], [0, 1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1]]),
    "rows as columns": np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1]]),
}


def make(shape: tuple = (7, 5, 6)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    label[:, :, 2] = 0  # a slice that a segmentation leaves out
    return rng.integers(0, 1000, shape).astype(np.int16), label


def run(source: Path, target: Path, *options: str) -> int:
    return prepare("dicom", ["--source", str(source), *options], target)


def only(target: Path, kind: str) -> np.ndarray:
    (path,) = (target / kind).glob("*.nii.gz")
    return np.asarray(nib.load(path).dataobj)


def report(target: Path) -> dict:
    return json.loads((target / "summary.json").read_text())


# A messy folder.


def test_a_messy_folder(tmp_path, target, capsys):
    """Nested, two patients, compressed, enhanced, with a CT, a localizer, copies, a DICOMDIR, a report and notes."""
    source, (image, _) = tmp_path / "in", make()
    first = write_series(source / "a" / "b", image, AFFINE, names=list("fbdace"), numbers=[3, 1, 2, 6, 5, 4])
    large = np.kron(image, np.ones((5, 5, 1), np.int16))
    other = {"PatientID": "other", "SeriesInstanceUID": series_uid("other"), "SeriesNumber": 11}
    for path in write_series(source / "c", large, AFFINE, **other):
        compress(path, SYNTAXES["RLELossless"])
    enhanced = {"SeriesInstanceUID": series_uid("e"), "SeriesNumber": 12, "PatientID": "other"}
    write_enhanced(source / "c" / "all.dcm", image, AFFINE, order=[3, 1, 0, 2, 5, 4], **enhanced)
    write_series(source / "ct", image, AFFINE, Modality="CT", SeriesInstanceUID=series_uid("ct"))
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": series_uid("scout")}
    write_series(source / "scout", image, AFFINE, **scout)
    for path in first[:3]:
        shutil.copy(path, source / f"{path.name}.dcm")
    for name in ("DICOMDIR", "test-SR.dcm"):
        shutil.copy(get_testdata_file(name, download=False), source)
    (source / "notes.txt").write_text("MR of a knee")
    assert run(source, target) == 0
    found = {path.name[:9]: np.asarray(nib.load(path).dataobj) for path in (target / "images").glob("*.nii.gz")}
    assert {name: array.shape for name, array in found.items()} == {
        "series004": (7, 5, 6),
        "series011": (35, 25, 6),
        "series012": (7, 5, 6),
    }
    assert all(np.array_equal(found[f"series0{n}"], a) for n, a in (("04", image), ("11", large), ("12", image)))
    text = capsys.readouterr().out
    assert "3 scans of 2 patients" in text
    assert "left out: 3 files: a second copy of a slice" in text
    assert "left out: 1 file: a DICOMDIR" in text
    content = json.loads((target / "datalist.json").read_text())
    assert len(content["unlabelled"]) == 3
    assert {item["patient"] for item in content["unlabelled"]} == {"patient001", "patient002"}


def test_the_files_that_come_with_pydicom(target, capsys):
    """MR in every encoding, a set of series behind a DICOMDIR, and two cut-off segmentations of somebody's liver."""
    folder = Path(get_testdata_file("MR_small.dcm", download=False)).parent
    assert run(folder, target) == 1
    summary = report(target)
    assert sorted(summary["failed"]) == ["liver_1frame.dcm", "liver_expb_1frame.dcm"]
    assert (summary["scans"], summary["patients"]) == (12, 3)
    printed = capsys.readouterr().out
    assert "7 files: a second copy of a slice (first: MR_small.dcm)" in printed
    assert "1 file: a second copy of a slice, damaged (first: MR_truncated.dcm)" in printed
    assert (target / "images" / "series001-ca6fd753b2.nii.gz").is_file()


def test_parts_between_gaps(tmp_path, target):
    paths = write_series(tmp_path / "in", make()[0], AFFINE)
    paths[2].unlink()
    with pytest.raises(InputError, match=r"nothing to prepare: series004-\w+: slices are missing"):
        run(tmp_path / "in", target)
    assert not target.exists()
    assert run(tmp_path / "in", target, "--split-gaps") == 0
    assert report(target)["scans"] == 2


def test_folders_without_mr(tmp_path, target):
    write_series(tmp_path / "in", make()[0], AFFINE, Modality="CT")
    with pytest.raises(InputError, match="nothing to prepare: left out: 6 files: modality CT, only MR is read"):
        run(tmp_path / "in", target)
    with pytest.raises(InputError, match="nowhere does not exist; give a folder with DICOM files"):
        run(tmp_path / "nowhere", target)
    assert not target.exists()


# Segmentations.


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_labels_come_along(tmp_path, target, kind, flip):
    """On the series' grid, in whatever way the segmentation is cut, turned or ordered."""
    image, label = make()
    write_series(tmp_path / "in", image, AFFINE)
    affine = AFFINE @ FLIPS[flip]
    orientation = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.io_orientation(affine))
    turned = np.asarray(nib.Nifti1Image(label, AFFINE).as_reoriented(orientation).dataobj)
    write_segmentation(tmp_path / "in" / "seg", turned, affine, SEGMENTS, kind=kind, SeriesInstanceUID="1.2.3")
    assert run(tmp_path / "in", target) == 0
    np.testing.assert_array_equal(only(target, "labels"), label)
    assert report(target)["labels"] == {"0": "background", "1": "large_bowel", "2": "stomach"}


def test_a_table_says_what_segments_mean(tmp_path, target):
    image, label = make()
    write_series(tmp_path / "in", image, AFFINE)
    write_segmentation(tmp_path / "in" / "seg", label, AFFINE, SEGMENTS, SeriesInstanceUID="1.2.3")
    assert run(tmp_path / "in", target, "--labels", "stomach=stomach,large_bowel=background") == 0
    np.testing.assert_array_equal(only(target, "labels"), label == 2)
    with pytest.raises(InputError, match="--labels has the item 'stomach'; each must be VALUE=CLASS"):
        run(tmp_path / "in", tmp_path / "b", "--labels", "stomach")


def test_a_segmentation_belongs_to_the_series_that_it_names(tmp_path, target):
    image, label = make()
    one = write_series(tmp_path / "in" / "one", image, AFFINE)
    write_series(tmp_path / "in" / "two", image, AFFINE, SeriesInstanceUID="1.2.7", SeriesNumber=5)
    uids = {"SeriesInstanceUID": "1.2.3", "ReferencedSeriesSequence": reference(one, series_uid("series"))}
    write_segmentation(tmp_path / "in" / "seg", label, AFFINE, SEGMENTS, **uids)
    elsewhere = {"SeriesInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.9"}
    write_segmentation(tmp_path / "in" / "lost", label, AFFINE, SEGMENTS, **elsewhere)
    assert run(tmp_path / "in", target) == 0
    (labelled,) = (target / "labels").glob("*.nii.gz")
    assert labelled.name.startswith("series004")
    assert "left out: lost: it segments no MR volume here" in report(target)["remarks"]


def shifted(folder: Path, label: np.ndarray) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = 0.7
    write_segmentation(folder / "seg", label, affine, SEGMENTS, SeriesInstanceUID="1.2.3")


def coarse(folder: Path, label: np.ndarray) -> None:
    write_segmentation(folder / "seg", label, np.diag([-3.0, -3.2, 3, 1]), SEGMENTS, SeriesInstanceUID="1.2.3")


def twice(folder: Path, label: np.ndarray) -> None:
    for name in ("seg", "seg2"):
        write_segmentation(folder / name, label, AFFINE, SEGMENTS, SeriesInstanceUID=f"1.2.{len(name)}")


def unnamed(folder: Path, label: np.ndarray) -> None:
    path = write_segmentation(folder / "seg", label, AFFINE, SEGMENTS, kind="LABELMAP", SeriesInstanceUID="1.2.3")
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence[1]
    dataset.save_as(path)


WRONG = {
    shifted: "seg lies on another grid than the series",
    coarse: "seg lies on another grid than the series",
    twice: "seg2? and seg2? both segment large_bowel; keep one of them",
    unnamed: "seg holds segment 2, which it does not name",
}


@pytest.mark.parametrize("mistake", WRONG)
def test_segmentations_that_do_not_fit(tmp_path, target, mistake):
    image, label = make()
    write_series(tmp_path / "in", image, AFFINE)
    mistake(tmp_path / "in", label)
    write_series(tmp_path / "in" / "good", image, AFFINE, SeriesInstanceUID="1.2.7", FrameOfReferenceUID="1.2.8")
    assert run(tmp_path / "in", target) == 1
    (sentence,) = report(target)["failed"].values()
    assert re.search(WRONG[mistake], sentence)
    assert report(target)["scans"] == 1
    assert not list((target / "labels").glob("*.nii.gz"))


def test_a_frame_of_a_segment_that_is_not_there(tmp_path, target):
    image, label = make()
    write_series(tmp_path / "in", image, AFFINE)
    path = write_segmentation(tmp_path / "in" / "seg", label, AFFINE, SEGMENTS, SeriesInstanceUID="1.2.3")
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence[1]
    dataset.save_as(path)
    assert run(tmp_path / "in", target) == 1
    assert "its frames are of segment 2, which it does not name" in report(target)["failed"]["seg"]


# Who the patient is.


def test_identity_stays_out_unless_asked_for(tmp_path, target):
    image, label = make()
    write_series(tmp_path / "in", image, AFFINE)
    write_segmentation(tmp_path / "in" / "seg", label, AFFINE, SEGMENTS, SeriesInstanceUID="1.2.3")
    bad = write_series(tmp_path / "in" / "bad", image, AFFINE, SeriesInstanceUID="1.2.7")
    bad[1].unlink()
    secrets = [*PATIENT.values(), "20200101", series_uid("series"), series_uid("study")]

    def written(folder: Path, *options: str) -> str:
        line = ["--source", str(tmp_path / "in"), "--target", str(folder), *options]
        command = [sys.executable, "-m", "data_prep.dicom", *line]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 1, result.stderr
        files = [path for path in folder.rglob("*") if path.is_file()]
        headers = [nib.load(path).header.binaryblock for path in files if path.suffix == ".gz"]
        texts = [path.read_bytes() for path in files if path.suffix in (".json", ".jsonl")] + [str(files).encode()]
        return result.stdout + result.stderr + b"".join(headers + texts).decode("latin-1")

    assert not [secret for secret in secrets if secret in written(target)]
    kept = written(tmp_path / "kept", "--keep-ids")
    assert PATIENT["PatientID"] in kept
    assert series_uid("series") in kept
    assert PATIENT["PatientName"] not in kept


def test_the_commands_start_without_torch():
    names = ", ".join(f"data_prep.{name}" for name in ("dicom", "nifti", "png_pairs", "uw_madison", "phantom"))
    code = f"import sys, {names}; print({{'torch', 'monai'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# Real slices, written to DICOM.


@pytest.mark.parametrize("syntax", [None, "JPEG2000Lossless", "JPEGLosslessProcess14_1"])
def test_real_slices_come_back(real_data, tmp_path, target, syntax):
    scan = real_data / "uwm_raw" / "train" / "case16" / "case16_day0" / "scans"
    slices = [np.asarray(Image.open(path)) for path in sorted(scan.glob("*.png"))[60:66]]
    image = np.stack(slices).T.astype(np.uint16)
    label = (image > np.percentile(image, 90)).astype(np.uint8)
    paths = write_series(tmp_path / "in", image, np.diag([-1.5, -1.5, -3, 1]))  # the last slice is at the feet
    for path in paths if syntax else ():
        compress(path, SYNTAXES[syntax])
    write_segmentation(tmp_path / "in" / "seg", label, np.diag([-1.5, -1.5, -3, 1]), {1: "bright"})
    assert run(tmp_path / "in", target) == 0
    np.testing.assert_array_equal(only(target, "images"), image[:, :, ::-1])
    np.testing.assert_array_equal(only(target, "labels"), label[:, :, ::-1])
