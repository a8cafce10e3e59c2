import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_raw import prepare
from PIL import Image

from data_prep.uw_madison import source as uw_madison
from data_prep.uw_madison.layout import BAD_SCANS
from data_prep.uw_madison.rle import decode, encode
from data_prep.uw_madison.source import main
from data_prep.uw_madison.table import read_table
from kvseg_monai.errors import InputError
from kvseg_monai.utils.records import RECORD

ROOT = Path(__file__).parents[2]
SCAN = "case2_day5"


def entries(target):
    content = json.loads((target / "datalist.json").read_text())
    return [item for section in ("training", "validation", "test") for item in content[section]]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_volumes_hold_the_slices(raw, target):
    raw.add(SCAN).label(SCAN, 2, "stomach", "8 2")  # row 1, columns 1 and 2
    prepare(raw.save(), target)
    image, label = (nib.load(target / folder / f"{SCAN}.nii.gz") for folder in ("images", "labels"))
    assert image.shape == label.shape == (6, 4, 3)
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.uint16, np.uint8)
    voxels = np.asarray(image.dataobj)
    assert voxels[5, 3, 0] == 1035  # column 5, row 3, first slice
    assert voxels[1, 2, 2] == 3021
    assert np.argwhere(np.asarray(label.dataobj) == 3).tolist() == [[1, 1, 1], [2, 1, 1]]


def test_geometry(raw, target):
    prepare(raw.add(SCAN).save(), target)
    for folder in ("images", "labels"):
        image = nib.load(target / folder / f"{SCAN}.nii.gz")
        assert nib.aff2axcodes(image.affine) == ("L", "P", "I")
        assert np.allclose(image.header.get_zooms(), (1.5, 1.63, 3.0))
        assert np.allclose(image.get_qform(), image.get_sform())
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_overlap_rule_and_count(raw, target):
    raw.add(SCAN)
    for organ, runs in (("large_bowel", "1 4"), ("small_bowel", "2 3"), ("stomach", "3 1")):
        raw.label(SCAN, 1, organ, runs)
    summary = prepare(raw.save(), target)
    label = np.asarray(nib.load(target / "labels" / f"{SCAN}.nii.gz").dataobj)
    assert label[:, 0, 0].tolist() == [1, 2, 3, 2, 0, 0]
    assert (summary["overlap_pixels"], summary["overlap_slices"]) == (3, 1)
    assert "stomach wins over small_bowel" in summary["overlap_rule"]
    assert summary["slices_per_class"] == {"large_bowel": 1, "small_bowel": 1, "stomach": 1}


def test_split_is_by_case(raw, target):
    for case in range(1, 7):
        raw.add(f"case{case}_day1").add(f"case{case}_day2")
    prepare(raw.save(), target)
    content = json.loads((target / "datalist.json").read_text())
    assert content["labels"] == {"0": "background", "1": "large_bowel", "2": "small_bowel", "3": "stomach"}
    patients = [{item["patient"] for item in content[section]} for section in ("training", "validation", "test")]
    assert [len(found) for found in patients] == [4, 1, 1]
    assert len(set.union(*patients)) == 6
    for item in entries(target):
        assert item["image"].startswith(f"images/{item['patient']}_day")
        assert (target / item["image"]).is_file()
        assert (target / item["label"]).is_file()


def test_bad_scans_are_named_and_left_out(raw, target, capsys):
    bad = "case7_day0"
    raw.add(SCAN).add(bad).save()
    assert main(["--source", str(raw.root), "--target", str(target), "--workers", "1"]) == 0
    assert f"known bad (--include-bad-scans uses them): {bad}" in capsys.readouterr().out
    assert [item["patient"] for item in entries(target)] == ["case2"]
    summary = prepare(raw.root, target, include_bad_scans=True)
    assert (summary["scans"], summary["reused_scans"], summary["excluded_bad_scans"]) == (2, 1, [])
    assert len(BAD_SCANS) == 12


def test_only_bad_scans(raw, target):
    with pytest.raises(InputError, match=r"only known bad scans .case7_day0.; add --include-bad-scans"):
        prepare(raw.add("case7_day0").save(), target)


def test_rows_of_absent_scans_are_reported(raw, target):
    raw.add(SCAN).rows.append(["case9_day1_slice_0001", "stomach", ""])
    assert prepare(raw.save(), target)["rows_without_scan"] == ["case9_day1"]


def test_the_summary_in_words(raw, target, capsys):
    raw.add(SCAN).add("case3_day1", slices=2).add("case7_day0").rows.append(["case9_day1_slice_0001", "stomach", ""])
    for organ, runs in (("large_bowel", "1 4"), ("small_bowel", "2 3")):
        raw.label(SCAN, 2, organ, runs)
    assert main(["--source", str(raw.save()), "--target", str(target), "--workers", "1"]) == 0
    assert capsys.readouterr().out == (
        f"2 scans of 2 cases in {target} (0 done before)\n"
        "5 slices, 1 with an organ (large_bowel 1, small_bowel 1, stomach 0)\n"
        "3 overlapping pixels in 1 slices; where organs overlap, stomach wins over small_bowel and small_bowel wins "
        "over large_bowel\n"
        "split by case: training: case2; validation: case3; test: -\n"
        "left out as known bad (--include-bad-scans uses them): case7_day0\n"
        "not in the source, though train.csv has rows for them: 1 scans (case9_day1)\n"
    )


def test_what_lies_there_and_is_no_slice_is_counted(raw, target, capsys):
    raw.add(SCAN).add("case7_day0").save()
    scans = raw.path(SCAN, 1).parent
    for name in ("._slice_0001.png", "notes.txt", "../localizer.png", "../../../more/a.png", "../../../list.xlsx"):
        (scans / name).parent.mkdir(exist_ok=True)
        (scans / name).write_text("")
    (raw.path("case7_day0", 1).parent / "of_a_bad_scan.txt").write_text("")
    main(["--source", str(raw.root), "--target", str(target), "--workers", "1"])
    assert "\npassed over in train: 2 *.png, 1 *.txt, 1 *.xlsx, 1 hidden\n" in capsys.readouterr().out


def test_a_scan_copied_under_another_case_is_reported(raw, target):
    raw.add(SCAN).add("case3_day1").save()
    remarks = prepare(raw.root, target)["remarks"]
    assert remarks == [f"one image under the names of several patients: {SCAN}, case3_day1"]


def test_the_train_folder_itself_is_a_source(raw, target):
    assert prepare(raw.add(SCAN).save() / "train", target)["scans"] == 1


def test_workers_give_the_same_files(raw, tmp_path):
    raw.add(SCAN).add("case3_day1").save()
    prepare(raw.root, tmp_path / "one")
    prepare(raw.root, tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_resume_after_interruption(raw, target, monkeypatch):
    raw.add(SCAN).add("case3_day1").save()
    convert = uw_madison.convert_scan

    def stop_at_second(scan, folder):
        if scan.name != SCAN:
            raise KeyboardInterrupt
        return convert(scan, folder)

    monkeypatch.setattr(uw_madison, "convert_scan", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        prepare(raw.root, target)
    assert not (target / "datalist.json").exists()
    assert json.loads((target / "summary.json").read_text())["complete"] is False
    monkeypatch.setattr(uw_madison, "convert_scan", convert)
    before = (target / "images" / f"{SCAN}.nii.gz").stat().st_mtime_ns
    summary = prepare(raw.root, target)
    assert (summary["scans"], summary["reused_scans"]) == (2, 1)
    assert (target / "images" / f"{SCAN}.nii.gz").stat().st_mtime_ns == before
    assert json.loads((target / "summary.json").read_text())["complete"] is True


def test_what_a_killed_run_left_is_removed(raw, target):
    raw.add(SCAN).save()
    prepare(raw.root, target)
    before = files(target / "images")
    (target / "images" / f".partial-{2**30}-{SCAN}.nii.gz").write_bytes(b"half")
    prepare(raw.root, target)
    assert files(target / "images") == before


def test_a_lost_or_changed_file_is_made_again(raw, target):
    raw.add(SCAN).add("case3_day1").save()
    prepare(raw.root, target)
    first = files(target)
    (target / "labels" / f"{SCAN}.nii.gz").unlink()
    assert prepare(raw.root, target)["reused_scans"] == 1
    assert files(target) == first | {"summary.json": files(target)["summary.json"]}
    raw.write(raw.path(SCAN, 1), np.full((4, 6), 7, np.uint16))
    assert prepare(raw.root, target)["reused_scans"] == 1
    assert np.asarray(nib.load(target / "images" / f"{SCAN}.nii.gz").dataobj)[0, 0, 0] == 7


def test_wrong_worker_count(raw, target):
    with pytest.raises(InputError, match="--workers is 0; it must be at least 1"):
        prepare(raw.add(SCAN).save(), target, workers=0)


def test_the_command_reports_a_mistake_in_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "data_prep.uw_madison",
        "--source",
        str(tmp_path),
        "--target",
        str(tmp_path / "out"),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""


def test_the_commands_start_without_torch():
    code = (
        "import sys, data_prep.uw_madison.source, data_prep.phantom.write; print({'torch', 'monai'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_help_states_the_overlap_rule(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "stomach wins over small_bowel" in " ".join(capsys.readouterr().out.split())


# Real data: two scans, and the label rows of ten.


def test_real_scans(real_data, tmp_path):
    source = tmp_path / "raw"
    (source / "train").mkdir(parents=True)
    (source / "train" / "case16").symlink_to(real_data / "uwm_raw" / "train" / "case16")
    (source / "train.csv").symlink_to(real_data / "uwm_raw" / "train.csv")
    summary = prepare(source, tmp_path / "out")
    assert (summary["slices"], summary["rows_without_scan"]) == (144, ["case102_day0"])
    # Counted in the competition's rows of this scan.
    assert summary["slices_per_class"]["stomach"] == 21
    image = nib.load(tmp_path / "out" / "images" / "case16_day0.nii.gz")
    label = np.asarray(nib.load(tmp_path / "out" / "labels" / "case16_day0.nii.gz").dataobj)
    assert image.shape == label.shape == (360, 310, 144)
    first = real_data / "uwm_raw/train/case16/case16_day0/scans/slice_0040_360_310_1.50_1.50.png"
    assert np.array_equal(np.asarray(image.dataobj)[:, :, 39].T, np.asarray(Image.open(first)))
    # The directions, by anatomy: in scanner mm (right, front, head) the stomach lies above the small bowel.
    centre = {value: image.affine[:3, :3] @ np.argwhere(label == value).mean(axis=0) for value in (2, 3)}
    assert centre[3][2] > centre[2][2] + 20


def test_real_rows_decode_and_encode_to_themselves(real_data):
    with (real_data / "uwm_rle" / "sizes.csv").open(newline="") as stream:
        sizes = {row["scan"]: (int(row["width"]), int(row["height"])) for row in csv.DictReader(stream)}
    table = read_table(real_data / "uwm_rle" / "train_subset.csv")
    masks = 0
    for scan, slices in table.items():
        width, height = sizes[scan]
        for organs in slices.values():
            for text in filter(None, organs.values()):
                assert encode(decode(text, (height, width))) == text
                masks += 1
    assert (len(table), sum(map(len, table.values())), masks) == (10, 1440, 1252)
