"""Small sources of the three kinds that differ in their files and are prepared alike: four patients, a scan each."""

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_files import reference, series_uid, write_segmentation, write_series
from PIL import Image

from data_prep.common.volume_set import run
from data_prep.dicom import source as dicom
from data_prep.nifti import source as nifti
from data_prep.png_pairs import source as png_pairs
from kvseg_monai.utils.records import RECORD

MODULES = {"dicom": dicom, "nifti": nifti, "png_pairs": png_pairs}
AFFINE = np.diag([-1.5, -1.6, 3, 1])
SHAPE = (7, 5, 3)
PATIENTS = ("anna", "bert", "cleo", "dora")
TABLE = ["--labels", "0=background,1=liver,2=spleen"]


def voxels(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (int16) and labels 0 to 2 (uint8) of a patient."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 1000, SHAPE).astype(np.int16), rng.integers(0, 3, SHAPE).astype(np.uint8)


def make_dicom(folder: Path) -> list[str]:
    """A series and its segmentation each."""
    for number, patient in enumerate(PATIENTS):
        uid = series_uid(patient)
        who = {"PatientID": patient, "SeriesNumber": number + 1, "FrameOfReferenceUID": f"1.2.3.{number}"}
        image, label = voxels(number)
        paths = write_series(folder / patient, image, AFFINE, SeriesInstanceUID=uid, **who)
        who |= {"SeriesInstanceUID": series_uid(f"{patient}-seg"), "ReferencedSeriesSequence": reference(paths, uid)}
        write_segmentation(folder / patient / "seg", label, AFFINE, {1: "Liver", 2: "Spleen"}, **who)
    return ["--source", str(folder)]


def make_nifti(folder: Path) -> list[str]:
    """``images/anna_1.nii.gz`` and ``labels/anna_1.nii.gz``, and so on."""
    for number, patient in enumerate(PATIENTS):
        for kind, array in zip(("images", "labels"), voxels(number), strict=True):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"{patient}_1.nii.gz")
    return ["--source", str(folder), "--patient", "([a-z]+)_", *TABLE]


def make_png(folder: Path) -> list[str]:
    """A 16-bit image and a mask per slice, and an index."""
    rows = [["file", "patient", "scan", "slice", "spacing_mm"]]
    for number, patient in enumerate(PATIENTS):
        for kind, array in zip(("images", "masks"), voxels(number), strict=True):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            pixels = array.astype(np.uint16 if kind == "images" else np.uint8)
            for index in range(SHAPE[2]):
                Image.fromarray(pixels[:, :, index].T).save(folder / kind / f"{patient}_{index}.png")
        rows += [[f"{patient}_{index}.png", patient, f"{patient}_1", str(index), "1.5,1.6"] for index in range(3)]
    with (folder / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return ["--source", str(folder), "--slice-gap", "3", *TABLE]


MAKE: dict[str, Callable[[Path], list[str]]] = {"dicom": make_dicom, "nifti": make_nifti, "png_pairs": make_png}
# A file of the second patient, which a test may spoil.
IMAGE_FILE = {"dicom": "bert/IM0001", "nifti": "images/bert_1.nii.gz", "png_pairs": "images/bert_1.png"}


def prepare(kind: str, arguments: list[str], target: Path, workers: int = 1) -> int:
    """Run a command in this process and return its exit code."""
    return run(*MODULES[kind].parse([*arguments, "--target", str(target), "--workers", str(workers)]))


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file of a prepared folder but the summary and the records, which say what was done before."""
    aside = ("summary.json", RECORD)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in aside)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
