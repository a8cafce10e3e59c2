"""Which files of a source are taken: links are followed, nothing hangs, the rest is reported, no name clashes."""

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_raw import RawSource
from made_raw import prepare as prepare_raw
from made_sources import AFFINE, SHAPE, TABLE, make_dicom, make_nifti, make_png, prepare, voxels
from PIL import Image

from data_prep.common.png_io import read_png
from data_prep.common.target import check_names
from kvseg_monai.data.nifti import read_volume
from kvseg_monai.errors import InputError

PAIRS = {"nifti": (make_nifti, "labels", ".nii.gz"), "png_pairs": (make_png, "masks", ".png")}


@pytest.fixture(params=list(PAIRS))
def kind(request):
    return request.param


@pytest.fixture
def source(tmp_path):
    return tmp_path / "in"


@pytest.fixture
def arguments(kind, source):
    return PAIRS[kind][0](source)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def images(folder: Path) -> set[str]:
    return {path.name.removesuffix(".nii.gz") for path in (folder / "images").glob("*.nii.gz")}


# Links.


def test_links_are_followed(kind, arguments, source, target, tmp_path):
    """To files of other names without ending, as git-annex and caches of downloads keep them, and to folders."""
    prepare(kind, arguments, tmp_path / "plain")
    store = tmp_path / "store"
    store.mkdir()
    for number, path in enumerate(sorted(source.glob("*/*"))):
        path.rename(store / f"SHA256E-{number}")
        path.symlink_to(Path("..", "..", "store", f"SHA256E-{number}"))
    assert prepare(kind, arguments, target) == 0
    assert images(target) == images(tmp_path / "plain")
    assert summary(target)["voxels_per_class"] == summary(tmp_path / "plain")["voxels_per_class"]


def test_a_folder_that_is_a_link(source, target, tmp_path):
    arguments = make_nifti(source)
    for folder in ("images", "labels"):
        (source / folder).rename(tmp_path / folder)
        (source / folder).mkdir()
        (source / folder / "site").symlink_to(tmp_path / folder)
    assert prepare("nifti", arguments, target) == 0
    assert images(target) == {f"site_{name}_1" for name in ("anna", "bert", "cleo", "dora")}


def test_links_in_a_circle_pipes_and_devices(kind, arguments, source, target):
    ending = PAIRS[kind][2]
    folder = source / "images"
    (folder / "again").symlink_to(folder)
    (folder / "up").symlink_to(source)
    (folder / f"self{ending}").symlink_to(f"self{ending}")
    (folder / f"gone{ending}").symlink_to("nowhere")
    (folder / f"null{ending}").symlink_to("/dev/null")
    (folder / "other").symlink_to("nowhere")
    os.mkfifo(folder / f"pipe{ending}")
    os.mkfifo(folder / "pipe")
    assert prepare(kind, arguments, target) == 1
    found = summary(target)
    assert found["scans"] == 4
    assert found["failed"].keys() == {"self", "gone", "null", "pipe"}
    assert "gone" + ending + " is a link that leads to no file; get the file itself" in found["failed"]["gone"]
    assert "pipe" + ending + " is no regular file" in found["failed"]["pipe"]
    assert found["remarks"] == [f"passed over in images and {PAIRS[kind][1]}: 3 linked to nothing, 1 not regular"]


def test_a_source_that_became_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="is no regular file; get it again"):
        read_png(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"is no regular file; (give one|copy it again)"):
        read_volume(tmp_path / "a.png")
    raw = RawSource(tmp_path / "raw").add("case2_day5").add("case3_day1")
    raw.path("case2_day5", 2).unlink()
    os.mkfifo(raw.path("case2_day5", 2))
    found = prepare_raw(raw.save(), tmp_path / "out")
    assert "is no regular file" in found["failed"]["case2_day5"]


def test_a_summary_that_is_a_pipe_or_nested_deeply(source, target):
    arguments = make_nifti(source)
    target.mkdir()
    os.mkfifo(target / "summary.json")
    with pytest.raises(InputError, match="holds files that are not from this preparation"):
        prepare("nifti", arguments, target)
    (target / "summary.json").unlink()
    (target / "summary.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="holds files that are not from this preparation"):
        prepare("nifti", arguments, target)


@pytest.mark.parametrize("make_link", [os.symlink, os.link])
def test_one_file_under_two_patients(kind, arguments, source, target, make_link):
    _, masks, ending = PAIRS[kind]
    stem = "anna_1"
    for folder in ("images", masks):
        make_link(source / folder / f"{stem}{ending}", source / folder / f"eva_1{ending}")
    if kind == "png_pairs":
        with (source / "index.csv").open("a", newline="") as stream:
            csv.writer(stream).writerow(["eva_1.png", "eva", "eva_1", "1", "1.5,1.6"])
    with pytest.raises(InputError, match=r"anna_1.* and .*eva_1.* are one file under the names of two patients"):
        prepare(kind, arguments, target)
    assert not target.exists()


@pytest.mark.parametrize("gray", [False, True])
def test_a_copy_under_two_patients_is_reported(kind, arguments, source, target, gray):
    """But not images of one gray value, as empty slices are."""
    _, masks, ending = PAIRS[kind]
    stem = "anna_1"
    if gray:
        blank = np.zeros(SHAPE, np.int16)
        if kind == "nifti":
            nib.save(nib.Nifti1Image(blank, AFFINE), source / "images" / f"{stem}{ending}")
        else:
            Image.fromarray(blank[..., 0].astype(np.uint16).T).save(source / "images" / f"{stem}{ending}")
    for folder in ("images", masks):
        shutil.copy(source / folder / f"{stem}{ending}", source / folder / f"eva_1{ending}")
        if kind == "png_pairs":  # then these are volumes of their own
            for other in ("anna_0", "anna_2"):
                (source / folder / f"{other}{ending}").unlink()
    if kind == "png_pairs":
        with (source / "index.csv").open("a", newline="") as stream:
            csv.writer(stream).writerow(["eva_1.png", "eva", "eva_1", "1", "1.5,1.6"])
    assert prepare(kind, arguments, target) == 0
    reported = [] if gray else ["one image under the names of several patients: anna_1, eva_1"]
    assert summary(target)["remarks"] == reported


def test_one_slice_under_two_patients(tmp_path, target):
    raw = RawSource(tmp_path / "raw").add("case2_day5").add("case3_day1")
    raw.path("case3_day1", 2).unlink()
    raw.path("case3_day1", 2).symlink_to(raw.path("case2_day5", 2))
    with pytest.raises(InputError, match="are one file under the names of two patients"):
        prepare_raw(raw.save(), target)
    assert not target.exists()


# What is passed over.


def test_what_is_passed_over_is_reported(kind, arguments, source, target, capsys):
    _, masks, ending = PAIRS[kind]
    others = ["a.zip", "b.zip", "c.mha", "LICENSE", "deep/er/d.nrrd", ".DS_Store", f"._anna_1{ending}", ".git/x.zip"]
    for name in [f"images/{name}" for name in others] + [f"{masks}/notes.txt"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    (Path(os.fsdecode(os.fsencode(source / "images") + b"/\xff" + ending.encode()))).write_text("")
    assert prepare(kind, arguments, target) == 0
    reported = (
        f"passed over in images and {masks}: 1 *.mha, 1 *.nrrd, 1 *.txt, 2 *.zip, 3 hidden, "
        "1 whose name is not in UTF-8, 1 without ending"
    )
    assert reported in capsys.readouterr().out
    assert summary(target)["remarks"] == [reported]


def test_other_series_of_a_patient_are_passed_over(source, target):
    """Of images and masks in one folder, distinguished by a suffix, no file of the other side counts."""
    arguments = make_nifti(source)
    for path in (source / "labels").iterdir():
        path.rename(source / "images" / path.name.replace(".nii.gz", "_seg.nii.gz"))
    for path in sorted((source / "images").glob("*_1.nii.gz")):
        for suffix in ("t1", "t2"):
            shutil.copy(path, str(path).replace(".nii.gz", f"_{suffix}.nii.gz"))
        path.unlink()
    one_folder = ["--masks", "images", "--image-suffix", "_t1", "--mask-suffix", "_seg"]
    assert prepare("nifti", [*arguments, *one_folder], target) == 0
    assert images(target) == {f"{name}_1" for name in ("anna", "bert", "cleo", "dora")}
    assert summary(target)["remarks"] == ["passed over in images: 4 *.nii.gz without _t1"]


def test_endings_in_capitals_are_read(kind, arguments, source, target):
    _, masks, ending = PAIRS[kind]
    for path in [*(source / "images").iterdir(), *(source / masks).iterdir()]:
        path.rename(str(path).replace(ending, ending.upper()))
    if kind == "png_pairs":
        index = source / "index.csv"
        index.write_text(index.read_text().replace(".png", ".PNG"))
    assert prepare(kind, arguments, target) == 0
    assert images(target) == {f"{name}_1" for name in ("anna", "bert", "cleo", "dora")}


def test_a_folder_of_nothing_but_others(kind, arguments, source, target):
    for path in (source / "images").iterdir():
        path.rename(path.with_suffix(".mha"))
    with pytest.raises(InputError, match=r"images holds no file \*.* .but (4|12) \*\.mha.; name the folder"):
        prepare(kind, arguments, target)


def test_an_index_that_is_not_there(kind, arguments, source, target):
    with pytest.raises(InputError, match=r"--index nope\.csv is not a file; correct the path"):
        prepare(kind, [*arguments, "--index", "nope.csv", "--patient", "([a-z]+)_"], target)


# Names of scans.


def test_two_scans_of_one_name(source, target):
    """``A`` and ``a`` are one file on many disks."""
    arguments = make_nifti(source)
    for folder in ("images", "labels"):
        shutil.copy(source / folder / "anna_1.nii.gz", source / folder / "Anna_1.nii.gz")
    with pytest.raises(
        InputError, match="named Anna_1 and anna_1, which are one file on disks that do not distinguish upper"
    ):
        prepare("nifti", [*arguments, "--patient", "([a-zA-Z]+)_"], target)
    assert not target.exists()


SCANS = {
    "../../escaped": "cannot be the name of a file",
    "..": "cannot be the name of a file",
    ".hidden": "cannot be the name of a file",
    "a\tb": "cannot be the name of a file",
    "x" * 240: "cannot be the name of a file",
    "ANNA_1": "two scans are named ANNA_1 and anna_1",
    "cle\u0301o": "two scans are named",  # the accent apart, and in one letter
    "bert/1": "two scans are of one name .bert_1.",
}


@pytest.mark.parametrize("scan", SCANS)
def test_names_of_scans_from_an_index(source, target, tmp_path, scan):
    arguments = make_png(source)
    index = source / "index.csv"
    index.write_text(index.read_text().replace(",dora_1,", f",{scan},").replace(",cleo_1,", ",cl\u00e9o,"))
    with pytest.raises(InputError, match=SCANS[scan]):
        prepare("png_pairs", arguments, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_path_as_the_name_of_a_scan_stays_in_the_target(source, target, tmp_path):
    arguments = make_png(source)
    index = source / "index.csv"
    index.write_text(index.read_text().replace(",dora_1,", f",{tmp_path}/dora_1,"))
    assert prepare("png_pairs", arguments, target) == 0
    assert f"{tmp_path}/dora_1".replace("/", "_") in images(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_names_of_many_letters_are_kept():
    check_names(["case 1", "Fall-\u00e4\u00f6", "\u60a3\u8005", "a.b", "a_b", "x" * 230])


def test_real_series_have_distinct_names(tmp_path, target):
    assert prepare("dicom", make_dicom(tmp_path / "in"), target) == 0
    check_names(sorted(images(target)))


def test_a_folder_and_a_name_that_are_alike(source, target):
    """``b/a.png`` and ``b_a.png`` would share a file."""
    for folder in ("images/b", "masks/b"):
        (source / folder).mkdir(parents=True)
        for name in ("../b_a", "a"):
            pixels = voxels(0)[folder.startswith("masks")][..., 0].astype(np.uint8)
            Image.fromarray(pixels.T).save(source / folder / f"{name}.png")
    arguments = ["--source", str(source), "--patient", "(b)", "--spacing", "1.5", *TABLE]
    with pytest.raises(InputError, match="would both be named b_a; rename one of them"):
        prepare("png_pairs", arguments, target)
