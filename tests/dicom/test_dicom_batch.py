"""A messy DICOM folder through the command: good volumes finished, bad ones reported, and no word on the patient."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import series_uid, write_enhanced, write_series
from oracle_inference import SEG_OVERLAY, on_canonical_axes, scan_of
from oracles import IntensityOracle
from seg_objects import oblique, read_back, validate
from support import BUNDLES, ROOT, config, names_in

from kvseg_monai.dicom.listing import volume_at

AFFINE = oblique(9)
IDENTITY = {
    "PatientID": "MRN-4711",
    "PatientName": "Geheimrat^Jane",
    "PatientBirthDate": "1970-02-03",  # not DICOM's form, which pydicom would warn of, with the value
    "OtherPatientIDs": "OTHER-77",
    "PatientAddress": "Hidden Lane 5",
    "StudyDescription": "Follow-up of Geheimrat",
    "SeriesDescription": "t2 Geheimrat",
    "StudyID": "STUDY-99",
    "AccessionNumber": "ACC-0815",
    "ReferringPhysicianName": "Referrer^Rita",
    "OperatorsName": "Operator^Otto",
    "InstitutionName": "Hospital of Nowhere",
    "ProtocolName": "Protocol Geheimrat",
}
SECRETS = [part for value in IDENTITY.values() for part in value.split("^")] + ["Geheimrat", series_uid("good")]


def label_map() -> np.ndarray:
    inner = np.random.default_rng(0).integers(0, 4, (20, 16, 5)).astype(np.uint8)
    return np.pad(inner, ((4, 4), (4, 4), (0, 0)))


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two good volumes, four faults, and what is left out by rule, all of one patient."""
    folder = tmp_path_factory.mktemp("scans")
    image = scan_of(label_map())

    def series(name: str, voxels: np.ndarray = image, **values: object) -> list[Path]:
        identity = IDENTITY | {"SeriesInstanceUID": series_uid(name), **values}
        return write_series(folder / name, voxels, AFFINE, numbers=[4, 2, 5, 1, 3], **identity)

    series("good")
    write_enhanced(folder / "b" / "c" / "many", image, AFFINE, **IDENTITY, SeriesInstanceUID=series_uid("many"))
    series("gap")[2].unlink()
    series("blank", np.zeros_like(image))
    series("air", np.where(image > 0, image // 8, -1000).astype(np.int16))
    cut_off = series("cut_off")[1]
    cut_off.write_bytes(cut_off.read_bytes()[:-300])
    series("ct", Modality="CT")
    series("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (folder / "letter.txt").write_text("no image")
    return folder


def run(scans: Path, target: Path, *overlays: str) -> subprocess.CompletedProcess:
    """The command as a user types it, with a network that knows the answer and the weights that are its own."""
    target.mkdir()
    torch.save(IntensityOracle().state_dict(), target / "model.pt")
    line = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        str([config(BUNDLES[1], "inference"), *overlays]),
    ]
    options = {"dataset_dir": scans, "output_dir": target / "out", "ckpt_dir": target, "bundle_root": target}
    options |= {
        "network_def": "{'_target_': 'oracles.IntensityOracle'}",
        "image_size": "[64,64]",
        "spacing": "[1.5,1.25]",
    }
    line += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": places}
    return subprocess.run(line, cwd=target, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("overlays", [(), (SEG_OVERLAY,)], ids=["nifti", "dicom_seg"])
def test_the_good_volumes_are_finished_and_the_bad_ones_reported(overlays, scans, tmp_path):
    result = run(scans, tmp_path / "run", *overlays)
    assert result.returncode == 2, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    *_, count, one, two, three, four, rest = result.stderr.strip().splitlines()
    assert (count, rest) == ("error: 4 of 6 cases refused:", "2 case(s) are finished")
    reported = "\n".join([one, two, three, four])
    for sentence in ("slices are missing", "is 0 in every voxel", "looks like CT", "cut_off/IM0001"):
        assert reported.count(sentence) == 1
    for rule in ("modality CT, only MR is read", "a localizer"):
        assert f"left out: 5 files: {rule}" in result.stderr
    suffix = ".dcm" if overlays else ".nii.gz"
    folders = [scans / "good", scans / "b"]
    written = names_in(tmp_path / "run" / "out")
    assert written == sorted(f"{volume_at(folder).name}{suffix}" for folder in folders)
    for folder in folders:
        assert_right(tmp_path / "run" / "out" / f"{volume_at(folder).name}{suffix}", folder)
    names = "\n".join(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    open_text = result.stdout + result.stderr + names + "".join(map(read_text, (tmp_path / "run").rglob("*.nii.gz")))
    assert [secret for secret in SECRETS if secret in open_text] == []


def assert_right(path: Path, folder: Path) -> None:
    """The label map is the one that the oracle saw, slice by slice."""
    if path.suffix == ".dcm":
        validate(path)
        series = volume_at(folder)
        made = nib.Nifti1Image(read_back(pydicom.dcmread(path), folder, series.shape), series.affine)
    else:
        made = nib.load(path)
    expected = on_canonical_axes(nib.Nifti1Image(label_map(), AFFINE))
    np.testing.assert_array_equal(np.asarray(on_canonical_axes(made).dataobj), np.asarray(expected.dataobj))


def read_text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("latin-1")
