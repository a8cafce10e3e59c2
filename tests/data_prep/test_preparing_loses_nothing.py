"""Whatever lies in a source or a target and is not ours, or was changed since, is there as before after a run."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from made_raw import RawSource
from made_sources import IMAGE_FILE, MAKE, MODULES, files, make_nifti, prepare

from data_prep.common import target as target_module
from data_prep.common.benchmark import time_both
from data_prep.phantom import write as phantom
from data_prep.phantom.write import write_phantom
from data_prep.uw_madison import source as uw_madison
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.records import RECORD

KINDS = [*MAKE, "uw_madison"]


def make_raw(folder: Path) -> list[str]:
    raw = RawSource(folder)
    for scan in ("case2_day5", "case3_day1", "case4_day1", "case5_day1"):
        raw.add(scan)
    return ["--source", str(raw.save())]


def make(kind: str, folder: Path) -> list[str]:
    return MAKE[kind](folder) if kind in MAKE else make_raw(folder)


def run(kind: str, arguments: list[str], folder: Path) -> int:
    if kind in MAKE:
        return prepare(kind, arguments, folder)
    return uw_madison.main([*arguments, "--target", str(folder), "--workers", "1"])


def tree(folder: Path) -> dict[str, str]:
    """What lies below a folder: of a file its hash, of a link where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# Source and target lie apart.


def link(path: Path, to: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to, target_is_directory=True)
    return path


def twice_linked(source: Path, out: Path) -> Path:
    link(out.parent / "other" / "far", out)
    link(source / "near", out.parent / "other")
    return out


# Makes the target of a source, and what leads from one to the other.
RELATIONS = {
    "the same": lambda source, out: source,
    "the same by another way": lambda source, out: source / ".." / source.name,
    "a link to it": lambda source, out: link(out, source),
    "in it": lambda source, out: source / "out",
    "in it by a link": lambda source, out: link(out, source.parent) / source.name / "out",
    "around it": lambda source, out: source.parent,
    "with folders that are links to it": lambda source, out: link(out / "images", source).parent,
    "with a link to one of its folders": lambda source, out: link(out / "labels", min(source.iterdir())).parent,
    "linked to from it": lambda source, out: link(source / "more", out).resolve(),
    "linked to from it by two links": twice_linked,
    "in a folder that is linked to from it": lambda source, out: link(source / "all", out.parent).resolve() / "out",
}


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_target_that_overlaps_the_source_is_refused(kind, relation, tmp_path):
    arguments = make(kind, tmp_path / "mine" / "in")
    folder = RELATIONS[relation](tmp_path / "mine" / "in", tmp_path / "mine" / "out")
    before = tree(tmp_path)
    for more in ([], ["--overwrite"]):
        with pytest.raises(InputError, match=r"--target .* --source .*must lie apart"):
            run(kind, [*arguments, *more], folder)
        assert tree(tmp_path) == before


def test_an_earlier_preparation_as_its_own_source(tmp_path, target):
    prepare("nifti", make_nifti(tmp_path / "in"), target)
    before = tree(tmp_path)
    arguments = ["--source", str(target), "--labels", "0=background,1=liver,2=spleen", "--patient", "([a-z]+)_"]
    with pytest.raises(InputError, match="must lie apart"):
        prepare("nifti", [*arguments, "--overwrite"], target)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("option", ["--images", "--masks"])
def test_folders_that_lie_elsewhere_count_as_sources(tmp_path, option):
    arguments = make_nifti(tmp_path / "in")
    elsewhere = tmp_path / "mine" / "all"
    shutil.copytree(tmp_path / "in" / ("images" if option == "--images" else "labels"), elsewhere)
    before = tree(tmp_path)
    for folder in (elsewhere, elsewhere / "out", elsewhere.parent):
        with pytest.raises(InputError, match=f"--target .* {option} .*must lie apart"):
            prepare("nifti", [*arguments, option, str(elsewhere), "--overwrite"], folder)
        assert tree(tmp_path) == before


def test_a_preparation_within_the_benchmark_leaves_no_trace(tmp_path, monkeypatch):
    arguments = make_nifti(tmp_path / "in")
    (tmp_path / "in" / "unused").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    before = tree(tmp_path)
    time_both("nifti", arguments, workers=1, rounds=1)
    assert tree(tmp_path) == before


# What is ours is replaced, and nothing else.

FOREIGN = ("notes.txt", "images/mine.nii.gz", "labels/x.json", "records/r.txt", "images/sub/a.png", ".partial-1-images")
FOREIGN += (f"images/.partial-{2**30}-mine.nii.gz", "images/.partial-x", ".replacement/mine.txt")


def add_foreign(folder: Path) -> dict[str, str]:
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    (folder / "images" / "elsewhere").symlink_to("/nowhere")
    return {name: what for name, what in tree(folder).items() if "mine" in name or name in FOREIGN}


def kept(folder: Path, foreign: dict[str, str]) -> bool:
    return foreign.items() <= tree(folder).items() and (folder / "images" / "elsewhere").is_symlink()


def remove_one(kind: str, folder: Path) -> None:
    """Remove a patient's scan from a source."""
    if kind in ("nifti", "png_pairs"):
        for path in folder.glob("*/bert_*"):
            path.unlink()
        return
    shutil.rmtree(folder / ("bert" if kind == "dicom" else "train/case2"))
    if kind == "uw_madison":
        table = folder / "train.csv"
        table.write_text("".join(line for line in table.read_text().splitlines(True) if "case2_" not in line))


def test_files_of_others_stay(kind, tmp_path, target):
    """Beside a first run, a second one, one that replaces all, and one of another data set."""
    arguments = make(kind, tmp_path / "in")
    foreign = add_foreign(target)
    with pytest.raises(InputError, match="holds files that are not from this preparation"):
        run(kind, arguments, target)
    run(kind, [*arguments, "--overwrite"], target)
    fresh = tmp_path / "fresh"
    run(kind, arguments, fresh)
    for more in ([], ["--overwrite"]):
        assert run(kind, [*arguments, *more], target) == 0
        assert kept(target, foreign)
        assert files(fresh).items() <= files(target).items()
    remove_one(kind, tmp_path / "in")
    assert run(kind, [*arguments, "--overwrite"], target) == 0
    assert kept(target, foreign)
    assert len(list((target / "records").glob("*.json"))) == 3
    assert len(list((target / "labels").glob("*.nii.gz"))) == 3


def changed_label(folder: Path) -> Path:
    """A label map that the user corrected."""
    path = sorted((folder / "labels").glob("*.nii.gz"))[1]
    path.write_bytes(path.read_bytes() + b"corrected")
    return path


def test_a_corrected_label_map_stays(kind, tmp_path, target):
    arguments = make(kind, tmp_path / "in")
    run(kind, arguments, target)
    path = changed_label(target)
    content = path.read_bytes()
    assert run(kind, arguments, target) == 0  # goes on with it
    assert path.read_bytes() == content
    assert path.name in (target / "datalist.json").read_text()
    before = tree(tmp_path)
    with pytest.raises(InputError, match=f"{path} is there and was not written by kvseg_monai, or was changed since"):
        run(kind, [*arguments, "--overwrite"], target)
    assert tree(tmp_path) == before
    record = target / "records" / f"{path.name.removesuffix('.nii.gz')}.json"
    record.unlink()  # the scan must be made again
    with pytest.raises(InputError, match=f"{path} is there and was not written"):
        run(kind, arguments, target)
    assert path.read_bytes() == content


def test_a_file_of_the_user_in_the_place_of_ours(kind, tmp_path, target):
    arguments = make(kind, tmp_path / "in")
    run(kind, arguments, tmp_path / "fresh")
    for place in (*files(tmp_path / "fresh"), "summary.json"):
        path = target / place
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(InputError, match=rf"{path} is there and was not written by kvseg_monai|holds a {place}"):
            run(kind, [*arguments, "--overwrite"], target)
        assert [one.read_text() for one in target.rglob("*") if one.is_file()] == ["mine"]
        shutil.rmtree(target)


def test_what_other_commands_wrote_stays(two, target):
    """A study's datalist, and predictions beside the labels, have records of ours too."""
    unlabelled = json.loads((target / "records" / "bert_1.json").read_text()) | {"labelled": False}
    (target / "labels" / "bert_1.nii.gz").unlink()
    write_text(target / "records" / "bert_1.json", json.dumps(unlabelled))
    made = [target / name for name in ("labels/bert_1.nii.gz", "labels/other.nii.gz", "images/other.nii.gz")]
    for path in made:
        write_text(path, "predicted")
    assert prepare("nifti", two, target) == 0
    assert [path.read_text() for path in made] == ["predicted"] * 3
    assert not (target / "images" / "bert_1.nii.gz").exists()


def test_a_folder_with_a_datalist_of_another_command(two, tmp_path, target):
    write_text(tmp_path / "study" / "datalist.json", "{}")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"study already holds a datalist\.json, but no preparation"):
        prepare("nifti", two, tmp_path / "study")
    assert tree(tmp_path) == before


def test_a_preparation_without_records_counts_as_the_users(kind, tmp_path, target):
    arguments = make(kind, tmp_path / "in")
    run(kind, arguments, target)
    for path in target.rglob(RECORD):
        path.unlink()
    before = tree(tmp_path)
    for more in ([], ["--overwrite"]):
        with pytest.raises(InputError, match=r"holds a preparation whose summary\.json no \.kvseg_monai\.jsonl lists"):
            run(kind, [*arguments, *more], target)
        assert tree(tmp_path) == before


def test_a_scan_that_became_bad_takes_no_file_of_the_user_along(tmp_path, target):
    arguments = make_nifti(tmp_path / "in")
    prepare("nifti", arguments, target)
    (tmp_path / "in" / IMAGE_FILE["nifti"]).write_bytes(b"no image")
    (target / "labels" / "bert_1.nii.gz").unlink()
    assert prepare("nifti", arguments, target) == 1
    assert not list(target.glob("*/bert_1*"))
    label = target / "labels" / "bert_1.nii.gz"
    label.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"bert_1\.nii\.gz is there and was not written"):
        prepare("nifti", arguments, target)
    assert label.read_bytes() == b"mine"


def test_unfinished_files_of_a_process_that_runs_stay(tmp_path, target):
    arguments = make_nifti(tmp_path / "in")
    prepare("nifti", arguments, target)
    path = target / "images" / f".partial-{os.getpid()}-anna_1.nii.gz"
    path.write_bytes(b"half")
    prepare("nifti", arguments, target)
    assert path.read_bytes() == b"half"


# What replaces is there before the earlier goes.


def stop_at(monkeypatch, module, name: str, number: int) -> None:
    real, calls = getattr(module, name), []

    def stopping(*args):
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, name, stopping)


@pytest.fixture
def two(tmp_path, target):
    """Arguments of another data set than that in the target."""
    prepare("nifti", make_nifti(tmp_path / "in"), target)
    arguments = make_nifti(tmp_path / "other")
    for folder in ("images", "labels"):
        (tmp_path / "other" / folder / "bert_1.nii.gz").rename(tmp_path / "other" / folder / "emil_1.nii.gz")
    prepare("nifti", arguments, tmp_path / "fresh")
    return [*arguments, "--overwrite"]


def test_replacing_that_is_interrupted_leaves_the_earlier(two, tmp_path, target, monkeypatch, capsys):
    before = tree(target)
    with monkeypatch.context() as patch:
        stop_at(patch, MODULES["nifti"], "convert_scan", 3)
        with pytest.raises(KeyboardInterrupt):
            prepare("nifti", two, target)
    assert before.items() <= tree(target).items()
    for folder in (target, target / ".replacement"):
        (folder / "labels" / f".partial-{2**30}-emil_1.nii.gz").write_bytes(b"half")  # as if it had been killed
    assert prepare("nifti", two, target) == 0
    assert "(2 done before)" in capsys.readouterr().out
    assert files(target) == files(tmp_path / "fresh")
    assert not (target / ".replacement").exists()


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("number", [1, 2, 6, 13, 14])
def test_moving_that_is_interrupted_goes_on(two, tmp_path, target, monkeypatch, number, more):
    with monkeypatch.context() as patch:
        stop_at(patch, target_module.shutil, "move", number)
        with pytest.raises(KeyboardInterrupt):
            prepare("nifti", two, target)
    assert not (target / "datalist.json").exists()
    for record in (target / "records").glob("*.json"):
        assert (target / "images" / f"{record.stem}.nii.gz").exists()
    assert prepare("nifti", [*two[:-1], *more], target) == 0
    assert files(target) == files(tmp_path / "fresh")
    assert not (target / ".replacement").exists()


def test_nothing_takes_the_place_of_something(two, tmp_path, target):
    for path in (tmp_path / "other" / "images").iterdir():
        path.write_bytes(b"no image")
    before = tree(target)
    with pytest.raises(InputError, match=r"earlier preparation in .* stays: .* is no readable NIfTI file"):
        prepare("nifti", two, target)
    assert tree(target) == before


@pytest.mark.parametrize(
    "wrong",
    [["--workers", "0"], ["--test-fraction", "1"], ["--patient", "(x+)"], ["--labels", "0=a"], ["--images", "."]],
)
def test_wrong_options_stop_before_anything_is_removed(two, target, wrong):
    before = tree(target)
    with pytest.raises(InputError):
        MODULES["nifti"].run(*MODULES["nifti"].parse([*two, "--target", str(target), *wrong]))
    assert tree(target) == before


def test_folders_on_another_disk(two, tmp_path, target, monkeypatch):
    """Where ``images`` is a link to another disk, what replaces is copied."""
    (tmp_path / "disk").mkdir()
    (target / "images").rename(tmp_path / "disk" / "images")
    (target / "images").symlink_to(tmp_path / "disk" / "images")
    rename = os.rename

    def not_across(source, place, **more):
        if ("disk" in os.path.realpath(place)) != ("disk" in os.path.realpath(source)):
            raise OSError(18, "Invalid cross-device link")
        return rename(source, place, **more)

    monkeypatch.setattr(os, "rename", not_across)
    assert prepare("nifti", two, target) == 0
    assert (target / "images").is_symlink()
    assert len(list((tmp_path / "disk" / "images").glob("*.nii.gz"))) == 4
    assert json.loads((target / "summary.json").read_text())["complete"]


@pytest.mark.parametrize("place", ["", "images", "labels", "records"])
def test_a_link_or_a_pipe_in_the_place_of_a_record(tmp_path, target, place):
    arguments = make_nifti(tmp_path / "in")
    (target / place).mkdir(parents=True)
    (tmp_path / "mine.jsonl").write_text("mine")
    (target / place / RECORD).symlink_to(tmp_path / "mine.jsonl")
    for _ in range(2):
        with contextlib.suppress(InputError):  # of each scan it is distinguished
            assert prepare("nifti", [*arguments, "--overwrite"], target) == 1
        assert (tmp_path / "mine.jsonl").read_text() == "mine"
        (target / place / RECORD).unlink()
        os.mkfifo(target / place / RECORD)  # the second time


# The phantom.


@pytest.fixture
def drawn(target):
    write_phantom(target, scans=1, slices=2)
    return target


def a_picture(folder: Path) -> Path:
    return min(folder.rglob("*.png"))


SPOIL = {
    "a note": lambda folder: (folder / "notes.txt").write_text("mine"),
    "a file deep in it": lambda folder: a_picture(folder).with_name("mine.png").write_text("mine"),
    "an empty folder": lambda folder: (folder / "train" / "case7").mkdir(),
    "a changed picture": lambda folder: a_picture(folder).write_text("mine"),
    "a changed table": lambda folder: (folder / "train.csv").open("a").write("mine"),
    "a link to a folder": lambda folder: link(folder / "more", folder.parent),
    "a link for a picture": lambda folder: [a_picture(folder).rename(folder.parent / "a"),
                                            a_picture(folder).with_name("b.png").symlink_to(folder.parent / "a")],
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "a pipe for a picture": lambda folder: [path := a_picture(folder), path.unlink(), os.mkfifo(path)],
    "no record": lambda folder: (folder / RECORD).unlink(),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOIL)
def test_a_phantom_that_is_not_alone_stays(drawn, tmp_path, what):
    SPOIL[what](drawn)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"which is not as the phantom was written.*only a phantom alone is replaced"):
        write_phantom(drawn, scans=1, slices=2, seed=1, overwrite=True)
    assert tree(tmp_path) == before


def test_a_phantom_is_replaced_when_the_new_one_is_whole(drawn, tmp_path, monkeypatch):
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, phantom, "_write_table", 1)
        with pytest.raises(KeyboardInterrupt):
            write_phantom(drawn, scans=1, slices=2, seed=1, overwrite=True)
        assert tree(tmp_path) == before
    with monkeypatch.context() as patch:
        stop_at(patch, Path, "rename", 2)  # the new one gets its name
        with pytest.raises(KeyboardInterrupt):
            write_phantom(drawn, scans=1, slices=2, seed=1, overwrite=True)
        assert tree(tmp_path) == before
    write_phantom(drawn, scans=1, slices=2, seed=1, overwrite=True)
    write_phantom(tmp_path / "fresh", scans=1, slices=2, seed=1)
    assert tree(drawn) == tree(tmp_path / "fresh") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


def test_a_link_to_a_phantom_stays_a_link(drawn, tmp_path):
    link(tmp_path / "link", drawn)
    write_phantom(tmp_path / "link", scans=1, slices=1, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert len(list(drawn.rglob("*.png"))) == 1
