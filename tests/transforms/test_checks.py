"""The input checks: every refusal is a sentence that names the file, and no real MR volume is refused."""

import gzip
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged
from skimage.io import imsave
from support import make_volume

from data_prep.common.volume_set import prepare
from data_prep.uw_madison.source import read_source
from kvseg_monai.data.readers import VolumeReader
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.transforms.checks import CT_SHARE, CheckLabelsd, CheckVolumed

AXIAL = np.diag([-1.5, -1.5, 3.0, 1.0])
SHAPE = (12, 10, 4)


def image(shape: tuple[int, ...] = SHAPE, dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, shape).astype(dtype)


def changed(value: float, place: tuple[int, ...] = (1, 2, 3)) -> np.ndarray:
    voxels = image(dtype=np.float32)
    voxels[place] = value
    return voxels


def ct_like() -> np.ndarray:
    """Air around soft tissue, in Hounsfield units."""
    voxels = np.full(SHAPE, -1000.0, np.float32) + image() / 100
    voxels[3:9, 3:8] = image((6, 5, 4)) / 10
    return voxels


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AXIAL) -> Path:
    """Any affine may stand in an sform; a qform takes those without shear only."""
    volume = nib.Nifti1Image(voxels, None)
    volume.set_sform(affine, code=1, update_affine=False)
    nib.save(volume, path)
    return path


def check(image_path: Path, label_path: Path | None = None, **options) -> None:
    """Load and check as the bundles do; MONAI's wrapping is taken off an error."""
    data = {"image": str(image_path)} | ({"label": str(label_path)} if label_path else {})
    transforms = [LoadImaged(list(data), reader=VolumeReader, image_only=True), CheckVolumed("image", **options)]
    transforms += [CheckLabelsd("label", 4)] if label_path else []
    try:
        Compose(transforms)(data)
    except RuntimeError as error:
        raise find_input_error(error) or error from error


def colours() -> np.ndarray:
    return np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])


def affine_with(value: float, row: int = 0, column: int = 0) -> np.ndarray:
    affine = AXIAL.copy()
    affine[row, column] = value
    return affine


REFUSED = {
    "a NaN": (changed(np.nan), AXIAL, r"has 1 voxel\(s\) that are NaN, infinite or beyond 1e\+30"),
    "an infinity": (changed(-np.inf), AXIAL, r"has 1 voxel\(s\) that are NaN, infinite or beyond 1e\+30"),
    "beyond all bounds": (changed(2e30), AXIAL, r"has 1 voxel\(s\) that are NaN, infinite or beyond 1e\+30; all must"),
    "one value": (np.full(SHAPE, 7, np.int16), AXIAL, "is 7 in every voxel; .* get the file again"),
    "no value": (np.zeros((12, 10, 0), np.int16), AXIAL, "that is none; get the file again"),
    "CT": (ct_like(), AXIAL, r"looks like CT: 7\d% of the voxels are within -1100 to -900.* give an MR volume"),
    "colours": (colours(), AXIAL, r"is a colour image \(R, G, B\)"),
    "complex": (image().astype(np.complex64), AXIAL, "voxels of the type complex64"),
    "2D": (image((12, 10)), AXIAL, "is 12 x 10 voxels; .* store it as 12 x 10 x 1"),
    "4D": (image((12, 10, 4, 2)), AXIAL, "is 12 x 10 x 4 x 2 voxels: a series over time"),
    "5D": (image((12, 10, 4, 1, 3)), AXIAL, "is 12 x 10 x 4 x 3 voxels: a series over time"),
    "affine NaN": (image(), affine_with(np.nan, column=3), "has an affine with NaN or infinite"),
    "flat affine": (image(), affine_with(-1.5, row=2, column=2) @ np.diag([1, 1, 0, 1]), "has voxels of 1.5 x 1.5 x 0"),
    "parallel axes": (image(), np.array([[1.5, 1.5, 0, 0], [0, 1e-3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]), "span a vol"),
    "metres": (image(), np.diag([0.0015, 0.0015, 0.003, 1]), "has voxels of 0.0015 x 0.0015 x 0.003 mm; 0.05 to 50 mm"),
    "wide voxels": (image(), affine_with(51), "has voxels of 51 x 1.5 x 3 mm; 0.05 to 50 mm is allowed"),
    "a giant": (image((60, 10, 4)), affine_with(49), "covers 2940 x 15 x 12 mm; at most 2500 mm is allowed"),
    "sagittal": (image((1, 10, 4)), AXIAL, "is one sagittal slice by its affine"),
    "coronal": (
        image((12, 10, 1)),
        np.array([[2, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 1]]),
        "is one coronal",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mr_volume_is_refused_with_a_sentence(name, tmp_path):
    voxels, affine, sentence = REFUSED[name]
    path = save(tmp_path / "scan.nii.gz", voxels, affine)
    with pytest.raises(InputError, match=f"^{path}.*{sentence}"):
        check(path)


def spoiled(path: Path, how: str) -> Path:
    whole = save(path, image()).read_bytes()
    if how == "cut off":
        path.write_bytes(whole[:-20])
    elif how == "too large":
        header = bytearray(gzip.decompress(whole))
        header[42:48] = np.array([32000] * 3, np.int16).tobytes()
        path.write_bytes(gzip.compress(header))
    elif how == "photograph":
        imsave(path.with_suffix(".png"), np.zeros((8, 8, 3), np.uint8), check_contrast=False)
        path.with_suffix(".png").rename(path)
    else:
        path.write_bytes({"empty": b"", "text": b"no image", "missing": b""}[how])
    if how == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("empty", "is no readable NIfTI file .*Empty file"),
        ("text", "is no readable NIfTI file .*copy it again"),
        ("missing", "is missing; restore it or correct the path"),
        ("photograph", "is no readable NIfTI file"),
        ("cut off", "is no readable NIfTI file .*end-of-stream"),
        ("too large", "is 32000 x 32000 x 32000 voxels by its header, more than the file can hold"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_sentence(how, sentence, tmp_path):
    path = spoiled(tmp_path / "scan.nii.gz", how)
    with pytest.raises(InputError, match=f"^{path} {sentence}"):
        check(path)


@pytest.mark.parametrize("scale", [1.0, 100.0, 300.0])
def test_mr_in_standard_deviations_is_not_taken_for_ct(scale, tmp_path):
    voxels = make_volume(0)[0].astype(np.float32)
    check(save(tmp_path / "scan.nii.gz", scale * (voxels - voxels.mean()) / voxels.std()))


def test_a_dark_corner_makes_no_ct(tmp_path):
    """As many voxels at the value of air as CT has, but nothing else of CT."""
    voxels = image(dtype=np.float32) + 400
    voxels.flat[: int(2 * CT_SHARE * voxels.size)] = -1000
    check(save(tmp_path / "scan.nii.gz", voxels))


def test_one_slice_is_reported_once_and_refused_where_neighbours_are_needed(tmp_path, caplog):
    path = save(tmp_path / "scan.nii.gz", image((12, 10, 1)))
    transform = CheckVolumed("image")
    volume = {"image": LoadImaged("image", reader=VolumeReader)({"image": str(path)})["image"]}
    with caplog.at_level(logging.INFO):
        transform(transform(volume))
    reported = [record.message for record in caplog.records if record.name == "kvseg_monai.transforms.checks"]
    assert reported == [f"{path} has one slice; it is processed like any volume"]
    with pytest.raises(InputError, match=r"has one slice, and --slice_offsets \[-1, 0, 1\] gives each slice its nei"):
        check(path, slice_offsets=[-1, 0, 1])


def test_dimensions_of_one_behind_the_third_are_dropped(tmp_path):
    check(save(tmp_path / "scan.nii.gz", image((12, 10, 4, 1, 1))))


LABEL = np.zeros(SHAPE, np.uint8)
WRONG_LABELS = {
    "another shape": (LABEL[:-1], AXIAL, "is 11 x 10 x 4 voxels and its image .*scan.nii.gz 12 x 10 x 4"),
    "4D": (np.zeros((*SHAPE, 2), np.uint8), AXIAL, "is 12 x 10 x 4 x 2 voxels and its image"),
    "beside": (LABEL, affine_with(0.8, column=3), "lies up to 0.8 mm beside its image .*0.75 mm, half a voxel"),
    "mirrored": (LABEL, affine_with(1.5), "lies up to 33 mm beside its image"),
    "no affine": (LABEL, affine_with(np.nan, column=3), "lies up to nan mm beside"),
    "a further class": (LABEL + np.uint8(4), AXIAL, r"holds the label values \[4\]; the network knows 0 to 3: correct"),
    "negative": (LABEL.astype(np.int16) - 1, AXIAL, r"holds the label values \[-1\]"),
    "half": (LABEL + np.float32(0.5), AXIAL, r"holds the label values \[0.5\]"),
    "NaN": (LABEL * np.float32("nan"), AXIAL, r"holds the label values \[nan"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_a_wrong_label_map_is_refused_with_a_sentence(name, tmp_path):
    voxels, affine, sentence = WRONG_LABELS[name]
    label = save(tmp_path / "label.nii.gz", voxels, affine)
    with pytest.raises(InputError, match=f"^{label} {sentence}"):
        check(save(tmp_path / "scan.nii.gz", image()), label)


def test_a_label_map_may_be_beside_by_less_than_half_a_voxel(tmp_path):
    label = save(tmp_path / "label.nii.gz", LABEL + np.uint8(3), affine_with(0.7, column=3))
    check(save(tmp_path / "scan.nii.gz", image()), label)


def test_the_affine_is_the_files_own_where_qform_and_sform_differ(tmp_path):
    """As nibabel and viewers read it; MONAI's reader would take the other one, for it fits the header's voxel size."""
    volume = nib.Nifti1Image(image(), AXIAL)
    volume.set_qform(np.diag([-2.0, -2.0, 4.0, 1.0]), code=1)
    volume.set_sform(AXIAL, code=1)
    nib.save(volume, tmp_path / "scan.nii.gz")
    loaded = LoadImaged("image", reader=VolumeReader)({"image": str(tmp_path / "scan.nii.gz")})["image"]
    np.testing.assert_allclose(loaded.affine, nib.load(tmp_path / "scan.nii.gz").affine)


@pytest.mark.parametrize("name", ["acdc", "hippocampus"])
def test_no_real_volume_is_refused(name, real_data):
    folder = real_data / name
    datalist = json.loads((folder / "datalist.json").read_text())
    entries = [entry for section in ("training", "validation", "test") for entry in datalist.get(section, [])]
    assert len(entries) >= 100
    for entry in entries:
        check(folder / entry["image"], folder / entry["label"])


def test_no_real_abdominal_scan_is_refused(real_data, tmp_path):
    prepare(read_source(real_data / "uwm_raw"), tmp_path / "data", workers=2)
    images = sorted((tmp_path / "data" / "images").glob("*.nii.gz"))
    assert len(images) == 2
    for path in images:
        check(path, tmp_path / "data" / "labels" / path.name)
