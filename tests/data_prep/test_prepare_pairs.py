"""Folders of images and masks, NIfTI and PNG: who is a patient, what belongs together, and what is refused."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_sources import AFFINE, TABLE, make_nifti, make_png, prepare, voxels
from PIL import Image

from kvseg_monai.errors import InputError


def patients(target: Path) -> set[str]:
    content = json.loads((target / "datalist.json").read_text())
    return {item["patient"] for section in ("training", "validation", "test") for item in content[section]}


def failed(target: Path) -> dict[str, str]:
    return json.loads((target / "summary.json").read_text())["failed"]


def save(folder: Path, name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), folder / name)


# Whose image it is.

RULES = {
    "a pattern": ("(bert|anna|cleo|dora)", {"anna", "bert", "cleo", "dora"}),
    "a column": ("column:person", {"p0", "p1", "p2"}),
    "the folder": ("folder", {"north", "south"}),
}


@pytest.mark.parametrize("rule", RULES)
def test_patients(tmp_path, target, rule):
    rows = [["file", "person"]]
    for number, name in enumerate(("north/anna", "north/bert", "south/cleo", "south/dora")):
        for kind, array in zip(("images", "labels"), voxels(number), strict=True):
            save(tmp_path / "in" / kind, f"{name}.nii.gz", array)
        rows.append([f"{name}.nii.gz", f"p{number // 2 + number % 2}"])
    with (tmp_path / "in" / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    option, expected = RULES[rule]
    assert prepare("nifti", ["--source", str(tmp_path / "in"), "--patient", option, *TABLE], target) == 0
    assert patients(target) == expected
    assert (target / "images" / "north_anna.nii.gz").is_file()


WRONG = [
    (["--patient", "(a"], r"--patient '\(a' is no regular expression"),
    (["--patient", "anna"], "has 0 groups; it must have one, in brackets"),
    (["--patient", "(x+)"], "anna_1.nii.gz does not fit --patient"),
    (["--patient", "folder"], "lies in no folder of its own; --patient must be another rule"),
    (["--patient", "column:who"], "--patient is column:who, but the index has the columns"),
    (["--images", "pictures"], "pictures is not a folder; name the folder below --source with --images"),
    (["--image-suffix", "_0000"], r"no file \*_0000.nii .but 4 \*.nii.gz without _0000.; name the folder"),
    (["--labels", "0=background"], "--labels names no class but background"),
    (["--labels", "0=background,1"], "--labels has the item '1'; each must be VALUE=CLASS"),
    (["--labels", "0=background,--1=a"], "--labels has the value '--1'; it must be a whole number"),
    (["--labels", "0=background,1=a,1=b"], "--labels has 1 twice"),
    (["--labels", "0=c,1=a"], "--labels does not say which value is background"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_stop_before_any_write(tmp_path, target, options, message):
    arguments = make_nifti(tmp_path / "in")
    with pytest.raises(InputError, match=message):
        prepare("nifti", [*arguments, *options], target)
    assert not target.exists()


def test_without_a_rule_for_patients(tmp_path, target):
    arguments = make_nifti(tmp_path / "in")
    with pytest.raises(InputError, match="--patient is missing; say whose images these are"):
        prepare("nifti", [*arguments[:2], *TABLE], target)


INDEXES = {
    "no column file": ("name,patient\na,b\n", "index.csv has no column file .found: name, patient."),
    "a file twice": ("file,patient\nanna_1.nii.gz,a\nanna_1.nii.gz,b\n", "index.csv names anna_1.nii.gz twice"),
    "a row missing": ("file,patient\nanna_1.nii.gz,a\n", "index.csv has no row for bert_1.nii.gz"),
    "a cell empty": ("file,patient\nanna_1.nii.gz,\n", "index.csv has no patient of anna_1.nii.gz"),
    "no text": (b"\xff\xfe\x00,", "index.csv (is not a readable CSV file|has no column file)"),
}


@pytest.mark.parametrize("mistake", INDEXES)
def test_wrong_indexes(tmp_path, target, mistake):
    arguments = make_nifti(tmp_path / "in")
    content, message = INDEXES[mistake]
    (tmp_path / "in" / "index.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        prepare("nifti", [*arguments[:2], *TABLE], target)
    assert not target.exists()


# What belongs together, and what the values mean.


def test_values_of_a_mask_are_mapped_by_the_table(tmp_path, target):
    image, label = voxels(0)
    save(tmp_path / "in", "images/a.nii.gz", image)
    save(tmp_path / "in", "labels/a.nii", np.array([0, 255, -7], np.float32)[label])
    table = "0=background,255=liver,-7=liver,9=spleen"
    arguments = ["--source", str(tmp_path / "in"), "--patient", "(a)", "--labels", table]
    assert prepare("nifti", arguments, target) == 0
    np.testing.assert_array_equal(np.asarray(nib.load(target / "labels" / "a.nii.gz").dataobj), label > 0)
    assert json.loads((target / "datalist.json").read_text())["labels"]["2"] == "spleen"


def beside(folder: Path, label: np.ndarray) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = 1
    save(folder, "labels/bert_1.nii.gz", label, affine)


MISTAKES = {
    "another shape": (lambda folder, label: save(folder, "labels/bert_1.nii.gz", label[1:]), "has the shape .6, 5, 3."),
    "another place": (beside, "bert_1.nii.gz has another affine than its image"),
    "unknown values": (
        lambda folder, label: save(folder, "labels/bert_1.nii.gz", label + 5),
        "holds the value 5, 6, 7, which --labels does not name .0=background,1=liver",
    ),
    "no whole number": (
        lambda folder, label: save(folder, "labels/bert_1.nii.gz", label + np.float32(0.5)),
        "holds the value 0.5, 1.5, 2.5, which",
    ),
    "not a number": (
        lambda folder, label: save(folder, "labels/bert_1.nii.gz", np.where(label, np.nan, 0).astype(np.float32)),
        "holds the value nan",
    ),
    "no mask": (lambda folder, label: (folder / "labels/bert_1.nii.gz").unlink(), "has no mask labels/bert_1.nii"),
    "no image": (lambda folder, label: (folder / "images/bert_1.nii.gz").unlink(), "has no image images/bert_1.nii"),
    "a series": (
        lambda folder, label: save(folder, "images/bert_1.nii.gz", np.stack([label] * 2, axis=3)),
        "it must be one volume of numbers",
    ),
    "metres": (
        lambda folder, label: [save(folder, f"{k}/bert_1.nii.gz", label, AFFINE / 1000) for k in ("images", "labels")],
        "bert_1 has voxels of 0.0015 x 0.0016 x 0.003 mm",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_pair_that_does_not_fit_is_left_out(tmp_path, target, mistake):
    arguments = make_nifti(tmp_path / "in")
    spoil, message = MISTAKES[mistake]
    spoil(tmp_path / "in", voxels(1)[1])
    assert prepare("nifti", arguments, target) == 1
    assert re.search(message, failed(target)["bert_1"])
    assert patients(target) == {"anna", "cleo", "dora"}


def test_nothing_else_of_a_header_is_kept(tmp_path, target):
    image, label = voxels(0)
    save(tmp_path / "in", "labels/a.nii.gz", label)
    nifti = nib.Nifti1Image(image, AFFINE)
    nifti.header["descrip"] = b"Doe^Jane"
    nifti.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1970"))
    (tmp_path / "in" / "images").mkdir()
    nib.save(nifti, tmp_path / "in" / "images" / "a.nii.gz")
    prepare("nifti", ["--source", str(tmp_path / "in"), "--patient", "(a)", *TABLE], target)
    made = nib.load(target / "images" / "a.nii.gz")
    assert bytes(made.header["descrip"]).strip(b"\0") == b""
    assert not made.header.extensions


# PNG: which slices make a volume.


def test_slices_with_numbers_in_a_row_make_a_volume(tmp_path, target):
    arguments = make_png(tmp_path / "in")
    for kind in ("images", "masks"):
        (tmp_path / "in" / kind / "bert_1.png").unlink()
    assert prepare("png_pairs", arguments, target) == 0
    shapes = {path.name.split(".")[0]: nib.load(path).shape for path in (target / "images").glob("*.nii.gz")}
    assert shapes == dict.fromkeys(("anna_1", "cleo_1", "dora_1"), (7, 5, 3)) | {
        "bert_0": (7, 5, 1),
        "bert_2": (7, 5, 1),
    }
    image = nib.load(target / "images" / "anna_1.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "I")
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels(0)[0])


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(folder / name)


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "index.csv"
    path.write_text(path.read_text().replace(old, new))


PNG_MISTAKES = {
    "colour": (
        lambda f: write(f, "images/bert_1.png", np.zeros((5, 7, 3), np.uint8)),
        "is 8-bit RGB; allowed are 8-bit",
    ),
    "another size": (lambda f: write(f, "masks/bert_1.png", np.zeros((5, 6), np.uint8)), "is 6 x 5 pixels, not 7 x 5"),
    "unknown value": (lambda f: write(f, "masks/bert_1.png", np.full((5, 7), 9, np.uint8)), "holds the value 9, which"),
    "cut off": (lambda f: (f / "masks/bert_1.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "is not a PNG file, damaged"),
    "two spacings": (lambda f: edit(f, 'bert_1,1,"1.5,1.6"', "bert_1,1,2"), "bert_1 have different spacings"),
    "two patients": (lambda f: edit(f, "bert_1.png,bert", "bert_1.png,anna"), "bert_1 have different patients"),
}


@pytest.mark.parametrize("mistake", PNG_MISTAKES)
def test_a_volume_of_slices_that_do_not_fit_is_left_out(tmp_path, target, mistake):
    arguments = make_png(tmp_path / "in")
    spoil, message = PNG_MISTAKES[mistake]
    spoil(tmp_path / "in")
    assert prepare("png_pairs", arguments, target) == 1
    assert message in failed(target)["bert_1"]
    assert patients(target) == {"anna", "cleo", "dora"}


PNG_WRONG = [
    (["--spacing", "wide"], "--spacing is 'wide'; it must be one or two numbers above 0 in mm"),
    (["--slice-gap", "0"], "--slice-gap is 0; it must be above 0 mm"),
    (["--slice", "([a-z]+)"], "the slice number of anna_0.png is 'anna'; it must be a whole number"),
    (["--scan", "column:day"], "--scan is column:day, but .*index.csv has the columns"),
]


@pytest.mark.parametrize(("options", "message"), PNG_WRONG)
def test_wrong_rules_for_slices(tmp_path, target, options, message):
    arguments = make_png(tmp_path / "in")
    with pytest.raises(InputError, match=message):
        prepare("png_pairs", [*arguments, *options], target)
    assert not target.exists()


def test_rules_that_are_missing(tmp_path, target):
    arguments = make_png(tmp_path / "in")
    with pytest.raises(InputError, match="--slice-gap is missing; anna_1 has 3 slices"):
        prepare("png_pairs", [*arguments[:2], *TABLE], target)
    (tmp_path / "in" / "index.csv").unlink()
    with pytest.raises(InputError, match="--patient is missing, and no index"):
        prepare("png_pairs", arguments, target)
    with pytest.raises(InputError, match="--spacing is missing, and no index"):
        prepare("png_pairs", [*arguments, "--patient", "([a-z]+)"], target)


def test_palettes_and_8_bits(tmp_path, target):
    for kind in ("images", "masks"):
        (tmp_path / "in" / kind).mkdir(parents=True)
    image, label = voxels(0)
    Image.fromarray((image[:, :, 0] % 256).astype(np.uint8).T).save(tmp_path / "in" / "images" / "a.png")
    mask = Image.fromarray(label[:, :, 0].T).convert("P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(tmp_path / "in" / "masks" / "a.png")
    arguments = ["--source", str(tmp_path / "in"), "--patient", "(a)", "--spacing", "1.5", *TABLE]
    assert prepare("png_pairs", arguments, target) == 0
    np.testing.assert_array_equal(np.asarray(nib.load(target / "labels" / "a.nii.gz").dataobj), label[:, :, :1])
    assert nib.load(target / "images" / "a.nii.gz").get_data_dtype() == np.uint8


# Real data.


def test_real_nifti(real_data, tmp_path, target):
    """Six volumes of three patients, in nnU-Net's names."""
    for path in sorted((real_data / "acdc" / "images").iterdir())[:6]:
        name = path.name.removesuffix(".nii.gz")
        for folder, source, suffix in (("imagesTr", path, "_0000"), ("labelsTr", path, "")):
            source = source if folder == "imagesTr" else real_data / "acdc" / "labels" / path.name
            (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / folder / f"{name}{suffix}.nii.gz").symlink_to(source)
    layout = ["--images", "imagesTr", "--image-suffix", "_0000", "--masks", "labelsTr"]
    table = ["--labels", "0=background,3=LV,1=RV,2=MYO"]
    arguments = ["--source", str(tmp_path / "in"), *layout, *table, "--patient", "(patient[0-9]+)_"]
    assert prepare("nifti", arguments, target) == 0
    assert len(patients(target)) == 3
    for path in (target / "images").glob("*.nii.gz"):
        source = nib.load(real_data / "acdc" / "images" / path.name)
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), np.asarray(source.dataobj))
        np.testing.assert_allclose(nib.load(path).affine, source.affine)
        label = np.asarray(nib.load(real_data / "acdc" / "labels" / path.name).dataobj)
        made = np.asarray(nib.load(target / "labels" / path.name).dataobj)
        np.testing.assert_array_equal(made, np.array([0, 2, 3, 1])[label])


def test_real_slices(real_data, tmp_path, target):
    names = "0=background,1=large_bowel,2=small_bowel,3=stomach"
    arguments = ["--source", str(real_data / "uwm_slices"), "--labels", names, "--slice-gap", "3"]
    assert prepare("png_pairs", arguments, target) == 0
    assert len(patients(target)) == 8
    first = next(iter(sorted((real_data / "uwm_slices" / "images").iterdir())))
    made = nib.load(target / "images" / f"{first.stem}.nii.gz")
    np.testing.assert_array_equal(np.asarray(made.dataobj)[..., 0].T, np.asarray(Image.open(first)))
    assert np.allclose(made.header.get_zooms()[:2], 1.5)


def test_real_slices_of_unknown_size(real_data, tmp_path, target):
    for kind in ("images", "masks"):
        (tmp_path / "in" / kind).mkdir(parents=True)
        for path in sorted((real_data / "sunnybrook" / kind).iterdir())[:20]:
            (tmp_path / "in" / kind / path.name).symlink_to(path)
    (tmp_path / "in" / "index.csv").symlink_to(real_data / "sunnybrook" / "index.csv")
    arguments = ["--source", str(tmp_path / "in"), "--labels", "0=background,1=lv_cavity"]
    with pytest.raises(InputError, match="--spacing is missing"):
        prepare("png_pairs", arguments, target)
    assert prepare("png_pairs", [*arguments, "--spacing", "1.25"], target) == 0
    assert len(list((target / "images").glob("*.nii.gz"))) == 20
