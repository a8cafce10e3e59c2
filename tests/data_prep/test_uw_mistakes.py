import json
from pathlib import Path

import numpy as np
import pytest
from made_raw import prepare

from data_prep.uw_madison.source import main
from kvseg_monai.errors import InputError
from kvseg_monai.utils.records import RECORD

SCAN = "case2_day5"


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# Mistakes in names and table: the run stops before it writes anything.


def drop_rows(raw, scan=SCAN):
    raw.rows = [row for row in raw.rows if not row[0].startswith(scan)]


def rename(raw, name):
    raw.path(SCAN, 2).rename(raw.path(SCAN, 2).with_name(name))


MISTAKES = {
    "renamed column": (lambda raw: raw.columns.__setitem__(2, "predicted"), "no column segmentation .found: id, class"),
    "missing column": (lambda raw: raw.columns.__setitem__(0, ""), "no column id .*must name the columns"),
    "short line": (lambda raw: raw.rows.append(["case2_day5_slice_0001"]), "line 11 has not one cell for each"),
    "long line": (lambda raw: raw.rows[3].append("1 2"), "line 5 has not one cell for each column"),
    "bad id": (lambda raw: raw.rows.append(["case2_slice_1", "stomach", ""]), "the id 'case2_slice_1'; ids look like"),
    "unknown class": (lambda raw: raw.rows[4].__setitem__(1, "colon"), "line 6 names the class 'colon'; allowed are"),
    "second row": (lambda raw: raw.rows.append(raw.rows[0]), "line 11 is a second row for 'case2_day5_slice_0001'"),
    "no rows": (lambda raw: raw.rows.clear(), "no rows under its column names"),
    "missing row": (lambda raw: raw.rows.pop(), "no row for case2_day5_slice_0003 and stomach"),
    "run outside": (
        lambda raw: raw.label(SCAN, 2, "stomach", "20 6"),
        "slice_0002, stomach: the run '20 6' does not fit",
    ),
    "odd runs": (lambda raw: raw.label(SCAN, 2, "stomach", "20"), "stomach: .* holds 1 numbers; it must hold pairs"),
    "no numbers": (lambda raw: raw.label(SCAN, 2, "stomach", "a b"), "stomach: .* only whole numbers"),
    "clashing runs": (lambda raw: raw.label(SCAN, 2, "stomach", "1 3 2 2"), "'1 3' and '2 2' overlap"),
    "odd name": (lambda raw: rename(raw, "slice_2.png"), "slice_2.png is not a slice name"),
    "no spacing": (lambda raw: rename(raw, "slice_0002_6_4_0.00_1.50.png"), "two spacings above 0"),
    "missing slice": (lambda raw: raw.path(SCAN, 2).unlink(), "case2_day5 lacks slice 2 .found 1, then 3"),
    "missing last slice": (lambda raw: raw.path(SCAN, 3).unlink(), "lacks slice 3, which train.csv has rows for"),
    "slice twice": (lambda raw: rename(raw, "slice_0001_4_6_1.50_1.63.png"), "holds slice 1 twice"),
    "other size": (lambda raw: rename(raw, "slice_0002_4_6_1.50_1.63.png"), "mixes slice sizes or spacings"),
    "other spacing": (lambda raw: rename(raw, "slice_0002_6_4_2.50_1.63.png"), "mixes slice sizes or spacings"),
    "scan without rows": (lambda raw: drop_rows(raw.add("case3_day1")), "case2_day5 has no rows in train.csv"),
    "empty scan": (lambda raw: [raw.path(SCAN, n).unlink() for n in (1, 2, 3)], "scans holds no PNG file"),
    "odd folder": (lambda raw: raw.path("case2_copy", 1).parent.mkdir(parents=True), "case2_copy is not named like"),
    "foreign case": (
        lambda raw: (raw.root / "train" / "case2").rename(raw.root / "train" / "case4"),
        "folder of case4",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_stop_before_any_write(raw, target, mistake):
    spoil, message = MISTAKES[mistake]
    raw.add(SCAN)
    spoil(raw)
    with pytest.raises(InputError, match=message):
        prepare(raw.save(), target)
    assert not target.exists()


def test_wrong_folders(raw, tmp_path, target):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        prepare(tmp_path / "nowhere", target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no train\.csv"):
        prepare(tmp_path / "empty", target)
    raw.add(SCAN).save()
    (raw.root / "train").rename(raw.root / "images")
    with pytest.raises(InputError, match="holds no scan; scans lie in train/case123"):
        prepare(raw.root, target)
    (raw.root / "train.csv").write_bytes(b"id,class\n\xff\xfe\x00")
    with pytest.raises(InputError, match=r"train\.csv (is not a CSV file|has no column)"):
        prepare(raw.root, target)
    assert not target.exists()


# Damaged images: the scan is left out, the others are finished.


def as_png(raw, pixels):
    raw.write(raw.path(SCAN, 2), pixels)


def cut(raw, size):
    raw.path(SCAN, 2).write_bytes(raw.path(SCAN, 2).read_bytes()[:size])


def flip(raw, place):
    data = bytearray(raw.path(SCAN, 2).read_bytes())
    data[place] ^= 4
    raw.path(SCAN, 2).write_bytes(data)


DAMAGE = {
    "cut off": (lambda raw: cut(raw, -14), "is not a PNG file, damaged or cut off"),
    "cut short": (lambda raw: cut(raw, 20), "is not a PNG file, damaged or cut off"),
    "empty": (lambda raw: cut(raw, 0), "is not a PNG file, damaged or cut off"),
    "flipped bit": (lambda raw: flip(raw, 50), "is not a PNG file, damaged or cut off"),
    "RGB": (lambda raw: as_png(raw, np.zeros((4, 6, 3), np.uint8)), "is 8-bit RGB; only 16-bit gray is allowed"),
    "8-bit": (lambda raw: as_png(raw, np.zeros((4, 6), np.uint8)), "is 8-bit gray; only 16-bit gray is allowed"),
    "turned": (lambda raw: as_png(raw, np.zeros((6, 4), np.uint16)), "is 4 x 6 pixels, its name says 6 x 4"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_scan_is_left_out(raw, target, damage, capsys):
    spoil, message = DAMAGE[damage]
    raw.add(SCAN).add("case3_day1").save()
    spoil(raw)
    assert main(["--source", str(raw.root), "--target", str(target), "--workers", "1"]) == 1
    summary = json.loads((target / "summary.json").read_text())
    assert message in summary["failed"][SCAN]
    assert summary["complete"] is False
    assert f"LEFT OUT {SCAN}: " in capsys.readouterr().out
    training = json.loads((target / "datalist.json").read_text())["training"]
    assert [item["patient"] for item in training] == ["case3"]
    assert not [path for path in target.rglob("*") if SCAN in path.name]


def test_no_scan_left(raw, target):
    raw.add(SCAN).save()
    prepare(raw.root, target)
    cut(raw, 60)
    assert main(["--source", str(raw.root), "--target", str(target)]) == 1
    assert not (target / "datalist.json").exists()


# The target.


def test_targets_that_are_refused(raw, tmp_path, target):
    raw.add(SCAN).save()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file; give a folder"):
        prepare(raw.root, tmp_path / "file")
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are not from this preparation"):
        prepare(raw.root, target)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]
    prepare(raw.root, target, overwrite=True)
    assert (target / "notes.txt").read_text() == "mine"


def test_another_data_set_is_replaced_only_on_request(raw, target):
    prepare(raw.add("case3_day1").save(), target)
    before = files(target)
    drop_rows(raw.add(SCAN), "case3")
    (raw.root / "train" / "case3").rename(raw.root / "aside")
    raw.save()
    with pytest.raises(InputError, match=r"already holds another data set.*--overwrite"):
        prepare(raw.root, target)
    assert files(target) == before
    prepare(raw.root, target, overwrite=True)
    assert sorted(path.name for path in (target / "images").glob("*.nii.gz")) == [f"{SCAN}.nii.gz"]
