"""dcm2niix and we make the same volumes of real DICOM files, voxel for voxel: the same values at the same places.

The files are pydicom's own, those of ``pydicom-data``, and what the environment variable KVSEG_DICOM_DIR names: a
folder with a folder for each archive.
"""

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dcm2niix import Agreement, compare

from kvseg_monai.dicom import Series

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("dcm2niix"), reason="dcm2niix is missing: apt install dcm2niix"),
]

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
# What differs, by the file or series, or by what dcm2niix says of it, and why. All else must be the same.
EXPLAINED = {
    r"MR_truncated\.dcm": "the file is cut off: refused here, filled up there",
    r"Unsupported transfer syntax": "JPEG-LS, which Debian's dcm2niix cannot decode",
    r"Compressed image stored as \d+ fragments": "JPEG 2000 in several pieces, which dcm2niix cannot decode",
    r"lossy JPEG of 12 bits": "refused: no decoder with a permissive licence reads it",
    r"WG04/\w+/MR\d_\w+\): other values": "one image in several encodings under one UID, of which dcm2niix takes one",
    r"MR1_JLSL\): .*Invalid JPEG-LS stream": "a stream that CharLS, our decoder, does not take; refused",
    r"GE ABCD pepolar": "a research sequence of GE, every second volume of which dcm2niix turns over",
    r"MRI_102TD_PHA|series003-9d2790f553-1 and": "frames of three orientations, stacked by dcm2niix as of one",
}
SHARE = 0.99  # of the volumes that are the same


def unexplained(agreement: Agreement) -> list[str]:
    """The differences that no reason is known for."""
    return [
        f"{one.volume}: {one.what}"
        for one in agreement.differences
        if not any(re.search(known, f"{one.volume}: {one.what} {one.log}") for known in EXPLAINED)
    ]


def total(archives: list[Path]) -> Agreement:
    return sum(map(compare, archives), start=Agreement())


def mr_files(folder: Path) -> list[Path]:
    """MR files, each an archive of its own: the same image comes in many encodings."""
    files = sorted(path for path in folder.glob("*.dcm") if path.stat().st_size)
    return [
        path for path in files if pydicom.dcmread(path, force=True, specific_tags=["Modality"]).get("Modality") == "MR"
    ]


@pytest.mark.filterwarnings("ignore")  # pydicom's, on files that are spoilt on purpose
def test_pydicoms_own_files():
    agreement = total([*mr_files(TEST_FILES), TEST_FILES / "dicomdirtests"])
    assert agreement.volumes >= 20
    assert unexplained(agreement) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not find_spec("data_store"), reason="pydicom-data is missing: pip install pydicom-data==1.0.0")
def test_pydicom_data():
    from data_store import DataStore

    agreement = total(mr_files(DataStore().data_path))
    assert agreement.volumes >= 5
    assert unexplained(agreement) == []


@pytest.mark.skipif("KVSEG_DICOM_DIR" not in os.environ, reason="KVSEG_DICOM_DIR names no folder with DICOM archives")
def test_archives_of_the_user():
    root = Path(os.environ["KVSEG_DICOM_DIR"])
    agreement = total([path for path in sorted(root.iterdir()) if path.is_dir()] or [root])
    differences = unexplained(agreement)
    known = len(agreement.differences) - len(differences)
    print(f"{agreement.volumes} volumes, {len(differences)} differ, {known} more for a known reason")
    assert agreement.volumes
    assert len(differences) <= (1 - SHARE) * agreement.volumes, "\n".join(differences[:50])


@pytest.mark.parametrize(("voxels", "origin", "what"), [(1, 0, "other values"), (0, 0.2, "a corner is 0.20 mm off")])
def test_a_difference_is_seen(monkeypatch, voxels, origin, what):
    """Else the tests above would agree to anything."""
    path = TEST_FILES / "MR_small.dcm"
    assert compare(path).differences == ()
    load = Series.load

    def moved(series: Series) -> tuple[np.ndarray, np.ndarray]:
        values, affine = load(series)
        affine[0, 3] += origin
        return values + voxels, affine

    monkeypatch.setattr(Series, "load", moved)
    assert compare(path).differences[0].what.startswith(what)
