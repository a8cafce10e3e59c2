"""What the preparations of DICOM, NIfTI and PNG have in common: one datalist, resuming, bad scans left out."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from made_sources import AFFINE, IMAGE_FILE, MAKE, MODULES, SHAPE, files, prepare, voxels
from support import ROOT

from data_prep.common.parallel import as_done
from kvseg_monai.errors import InputError

SECTIONS = ("training", "validation", "test")


@pytest.fixture(params=list(MAKE))
def kind(request):
    return request.param


@pytest.fixture
def arguments(kind, tmp_path):
    return MAKE[kind](tmp_path / "in")


def on_one_grid(path):
    """Voxels of a NIfTI file with x to the left, y to the back and z to the head, as the sources were made."""
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(AFFINE))
    return np.asarray(image.as_reoriented(turn).dataobj)


def test_volumes_labels_and_datalist(kind, arguments, target, capsys):
    assert prepare(kind, arguments, target) == 0
    content = json.loads((target / "datalist.json").read_text())
    assert [name.lower() for name in content["labels"].values()] == ["background", "liver", "spleen"]
    entries = [item for section in SECTIONS for item in content[section]]
    assert [len(content[section]) for section in SECTIONS] == [2, 1, 1]
    assert len({item["patient"] for item in entries}) == len(entries) == 4
    found = []
    for item in entries:
        image, label = (nib.load(target / item[key]) for key in ("image", "label"))
        assert np.allclose(image.header.get_zooms(), (1.5, 1.6, 3))
        assert np.allclose(image.affine, label.affine)
        assert image.shape == label.shape == SHAPE
        assert label.get_data_dtype() == np.uint8
        found.append([on_one_grid(target / item[key]) for key in ("image", "label")])
    for number in range(4):
        image, label = (array[:, :, ::-1] if kind == "png_pairs" else array for array in voxels(number))
        assert sum(np.array_equal(image, one) and np.array_equal(label, two) for one, two in found) == 1
    assert "4 scans of 4 patients" in capsys.readouterr().out


def test_a_second_run_has_nothing_to_do(kind, arguments, target, capsys):
    prepare(kind, arguments, target)
    before = files(target)
    made = min((target / "images").glob("*.nii.gz"))
    made.with_name(f".partial-{2**30}-{made.name}").write_bytes(b"half")  # left by a run that was killed
    assert prepare(kind, arguments, target) == 0
    assert files(target) == before
    assert "(4 done before)" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(kind, arguments, target, monkeypatch, capsys):
    convert, done = MODULES[kind].convert_scan, []

    def stop_at_third(scan, folder):
        done.append(scan.name)
        if len(done) == 3:
            raise KeyboardInterrupt
        return convert(scan, folder)

    monkeypatch.setattr(MODULES[kind], "convert_scan", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(kind, arguments, target)
    assert not (target / "datalist.json").exists()
    assert json.loads((target / "summary.json").read_text())["complete"] is False
    monkeypatch.setattr(MODULES[kind], "convert_scan", convert)
    assert prepare(kind, arguments, target) == 0
    assert "(2 done before)" in capsys.readouterr().out


def test_a_changed_file_is_read_again(kind, arguments, target, tmp_path, capsys):
    prepare(kind, arguments, target)
    path = tmp_path / "in" / IMAGE_FILE[kind]
    path.touch()
    assert prepare(kind, arguments, target) == 0
    assert "(3 done before)" in capsys.readouterr().out


def test_processes_make_no_difference(kind, arguments, tmp_path):
    prepare(kind, arguments, tmp_path / "one")
    prepare(kind, arguments, tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_bad_scan_is_left_out_and_reported(kind, arguments, target, tmp_path, capsys):
    path = tmp_path / "in" / IMAGE_FILE[kind]
    path.write_bytes(path.read_bytes()[:-20])
    assert prepare(kind, arguments, target) == 1
    text = capsys.readouterr().out
    assert text.count("LEFT OUT") == 1
    assert "3 scans of 3 patients" in text
    assert len(files(target)) == 3 * 3 + 1
    assert len(json.loads((target / "summary.json").read_text())["failed"]) == 1


def test_a_scan_that_became_bad_leaves_the_target(kind, arguments, target, tmp_path):
    prepare(kind, arguments, target)
    path = tmp_path / "in" / IMAGE_FILE[kind]
    path.write_bytes(path.read_bytes()[:-20])
    assert prepare(kind, arguments, target) == 1
    assert len(files(target)) == 3 * 3 + 1


def test_targets_that_are_refused(kind, arguments, target, tmp_path):
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are not from this preparation"):
        prepare(kind, arguments, target)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]
    other = MAKE[kind](tmp_path / "other")
    (tmp_path / "other" / IMAGE_FILE[kind]).unlink()
    prepare(kind, arguments, tmp_path / "out2")
    if kind != "dicom":  # there a missing slice makes no other set of scans
        with pytest.raises(InputError, match=r"already holds another data set.*--overwrite"):
            prepare(kind, other, tmp_path / "out2")


@pytest.mark.parametrize(("option", "value"), [("--test-fraction", "1"), ("--workers", "0")])
def test_wrong_numbers(kind, arguments, target, option, value):
    with pytest.raises(InputError, match=f"{option} is {value}; it must be at least"):
        MODULES[kind].run(*MODULES[kind].parse([*arguments, "--target", str(target), option, value]))
    assert not target.exists()


def test_the_command_reports_a_mistake_in_one_line(kind, arguments, tmp_path):
    wrong = ["--source", str(tmp_path / "nowhere"), *arguments[2:], "--target", str(tmp_path / "out")]
    line = [sys.executable, "-m", f"data_prep.{kind}", *wrong]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "nowhere" in result.stderr


def test_a_process_that_is_ended_from_outside_is_reported():
    with pytest.raises(InputError, match=r"a process was ended from outside.*--workers 1"):
        list(as_done(os._exit, [1, 1], workers=2))
