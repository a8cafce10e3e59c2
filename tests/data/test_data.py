"""Datalists, plain folders and the split by patient, with what a user may get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_series

from kvseg_monai.data import dataset as data
from kvseg_monai.errors import InputError


def make_dataset(folder: Path, patients: dict[str, list[str]], **extra) -> Path:
    """A datalist whose files exist and are empty: section -> patients, two scans each."""
    content = dict(extra)
    for section, names in patients.items():
        content[section] = []
        for name in names:
            for day in (1, 2):
                entry = {"image": f"{name}_day{day}.nii.gz", "label": f"{name}_day{day}_label.nii.gz", "patient": name}
                for key in ("image", "label"):
                    (folder / entry[key]).touch()
                content[section].append(entry)
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def patients(entries: list[dict[str, str]]) -> set[str]:
    return {entry["patient"] for entry in entries}


NAMES = [f"case{number}" for number in range(10)]


def test_sections_are_read_with_absolute_paths(tmp_path):
    folder = make_dataset(tmp_path, {"training": ["a", "b"], "validation": ["c"], "test": ["d"]})
    for section, names in (("training", {"a", "b"}), ("validation", {"c"}), ("test", {"d"})):
        entries = data.cases(folder, section)
        assert patients(entries) == names
        assert all(Path(entry[key]).is_absolute() for entry in entries for key in ("image", "label"))


def test_without_validation_patients_are_held_out_whole(tmp_path):
    folder = make_dataset(tmp_path, {"training": NAMES})
    training, validation = (patients(data.cases(folder, section)) for section in ("training", "validation"))
    assert training | validation == set(NAMES)
    assert not training & validation
    assert len(validation) == 2
    assert patients(data.cases(folder, "validation", seed=1)) != validation
    assert len(patients(data.cases(folder, "validation", holdout=0.5))) == 5


@pytest.mark.parametrize("holdout", [0.0, 1.0])
def test_either_side_of_a_split_keeps_a_patient(tmp_path, holdout):
    folder = make_dataset(tmp_path, {"training": ["a", "b"]})
    assert len(patients(data.cases(folder, "training", holdout=holdout))) == 1


def test_a_single_patient_cannot_be_split(tmp_path):
    with pytest.raises(InputError, match="at least two patients"):
        data.cases(make_dataset(tmp_path, {"training": ["a"]}), "training")


def test_a_patient_in_two_sections_is_refused(tmp_path):
    folder = make_dataset(tmp_path, {"training": ["a", "b"], "validation": ["b"]})
    with pytest.raises(InputError, match="patient b is in training and in validation"):
        data.cases(folder, "training")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is a list; a datalist is an object with the lists training, validation, test"),
        ('{"training": {}}', "'training' is an object with nothing; it must be a list"),
        ('{"training": [1]}', "training, entry 1 is 1; each must be an object with an 'image'"),
        ('{"training": [{"label": "x"}]}', "entry 1 is an object with 'label'; each must be"),
        (
            '{"training": [], "validation": [{"image": "a", "label": "b"}]}',
            "the training list is empty or not there, .* has validation .1.: name training cases",
        ),
        ('{"training": [{"image": "a"}], "validation": [{"image": "b"}]}', "a has no 'label'"),
        ('{"training": [{"image": "a", "label": "b"}], "validation": [{"image": "c"}]}', "the file .*a is missing"),
    ],
)
def test_a_broken_datalist_is_reported(tmp_path, content, sentence):
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        data.cases(tmp_path, "training")


def test_unknown_section(tmp_path):
    with pytest.raises(InputError, match="section is 'tests'; it must be one of training, validation, test"):
        data.cases(make_dataset(tmp_path, {"training": ["a", "b"]}), "tests")


def test_class_names_come_from_the_datalist_or_the_default(tmp_path):
    make_dataset(tmp_path, {"training": ["a", "b"]}, labels={"0": "background", "2": "LV", "1": "RV"})
    assert data.class_names(tmp_path, ["x"]) == ["RV", "LV"]
    make_dataset(tmp_path, {"training": ["a", "b"]})
    assert data.class_names(tmp_path, ["x"]) == ["x"]
    make_dataset(tmp_path, {"training": ["a", "b"]}, labels={"0": "background", "2": "LV"})
    with pytest.raises(InputError, match=r"the label values are \[0, 2\]"):
        data.class_names(tmp_path, ["x"])


def test_no_list_stands_for_another(tmp_path):
    folder = make_dataset(tmp_path, {"training": NAMES, "validation": ["v"], "test": []})
    for ask in (data.cases, lambda folder, section: data.volumes(folder, section=section)):
        with pytest.raises(
            InputError, match=r"none stands for another; .* training \(20\) and validation \(2\): name t"
        ):
            ask(folder, "test")
    with pytest.raises(InputError, match="choose a list by --section, or give the folder of the images"):
        data.volumes(folder)
    assert data.volumes(folder, required=False) == []  # as MONAI Label asks
    assert len(data.volumes(folder, section="val")) == 2


def test_inference_takes_test_cases_with_or_without_label_then_those_listed_as_unlabelled(tmp_path):
    images = ["a", "b", "c"]
    for name in images:
        (tmp_path / name).touch()
    content = {"training": [{"image": "a", "label": "b"}], "testing": ["./c"], "unlabelled": ["d"]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert data.volumes(tmp_path) == [{"image": str(tmp_path / "c")}]
    with pytest.raises(InputError, match="test: c has no 'label'; training and scoring need one"):
        data.cases(tmp_path, "test")
    (tmp_path / "datalist.json").write_text(json.dumps({**content, "testing": []}))
    assert data.volumes(tmp_path) == [{"image": str(tmp_path / "d")}]  # missing: its reading reports it


def test_paths_may_be_relative_to_another_folder_by_option_alone(tmp_path):
    (tmp_path / "plan").mkdir()
    folder = make_dataset(tmp_path / "plan", {"training": ["a", "b"], "test": ["c"]})
    for path in folder.glob("*.nii.gz"):
        path.rename(tmp_path / path.name)
    with pytest.raises(InputError, match="is missing; restore it"):
        data.cases(folder, "test")
    assert data.cases(folder, "test", base_dir=tmp_path)[0]["image"] == str(tmp_path / "c_day1.nii.gz")
    assert data.volumes(folder, base_dir=tmp_path)[1]["image"] == str(tmp_path / "c_day2.nii.gz")


def test_links_keep_their_names(tmp_path):
    """A hub's cache: names that mean something are links to blobs without."""
    folder = tmp_path / "snapshot"
    (tmp_path / "blobs").mkdir()
    folder.mkdir()
    make_dataset(folder, {"training": ["a"], "validation": ["b"], "test": ["c"]})
    for number, path in enumerate(sorted(folder.glob("*.nii.gz"))):
        blob = path.rename(tmp_path / "blobs" / f"{number:064x}")
        path.symlink_to(Path("..", "blobs", blob.name))
    assert [Path(case["image"]).name for case in data.cases(folder, "test")] == ["c_day1.nii.gz", "c_day2.nii.gz"]
    assert data.volumes(folder / "a_day1.nii.gz") == [{"image": str(folder / "a_day1.nii.gz")}]
    (folder / "datalist.json").unlink()
    assert [Path(case["image"]).name for case in data.volumes(folder)][:2] == ["a_day1.nii.gz", "a_day1_label.nii.gz"]


def test_volumes_of_a_datalist_a_folder_and_a_file(tmp_path, caplog):
    folder = make_dataset(tmp_path, {"training": ["a"], "validation": ["b"], "test": ["c"]})
    assert [Path(case["image"]).name for case in data.volumes(folder)] == ["c_day1.nii.gz", "c_day2.nii.gz"]
    plain = tmp_path / "plain"
    (plain / "deep").mkdir(parents=True)
    for name in ("b.nii", "deep/a.nii.gz", "notes.txt"):
        (plain / name).touch()
    assert [Path(case["image"]).name for case in data.volumes(plain)] == ["b.nii", "a.nii.gz"]
    assert "passed over: 1 *.txt (first: notes.txt)" in caplog.text
    assert [Path(case["image"]).name for case in data.volumes(plain / "b.nii")] == ["b.nii"]


def test_dicom_files_are_not_counted_as_passed_over(tmp_path, caplog):
    write_series(tmp_path / "scan.1", np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-1, -1, 3, 1.0]))
    (tmp_path / "b.nii.gz").touch()
    (tmp_path / "c.mgz").touch()
    assert len(data.volumes(tmp_path)) == 2
    assert "passed over: 1 *.mgz (first: c.mgz)" in caplog.text
    assert all(Path(case["image"]).parent == tmp_path for case in data.volumes(tmp_path))


def test_a_datalist_that_leads_nowhere_is_no_plain_folder(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "datalist.json").symlink_to("gone.json")
    with pytest.raises(InputError, match=r"datalist\.json is missing"):
        data.volumes(tmp_path)
    (tmp_path / "datalist.json").unlink()
    (tmp_path / "datalist.json").mkdir()
    with pytest.raises(InputError, match=r"datalist\.json is no file"):
        data.volumes(tmp_path)


@pytest.mark.parametrize("name", ["empty", "missing", "empty/notes.txt"])
def test_nothing_to_segment_is_reported(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"has no volume.*; --dataset_dir must be"):
        data.volumes(tmp_path / name)
