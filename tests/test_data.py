"""Datalists, plain folders and the split by patient, with what a user may get wrong."""

import json
from pathlib import Path

import pytest

from kvseg_monai import data
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
    assert patients(data.cases(folder, "test")) == validation
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
        ("[]", "has no list 'training'"),
        ('{"training": {}}', "has no list 'training'"),
        ('{"training": [1]}', "an entry is 1"),
        ('{"training": [{"label": "x"}]}', "must be an object with an 'image'"),
        ('{"training": [], "validation": [{"image": "a", "label": "b"}]}', "the training list is empty"),
        ('{"training": [{"image": "a"}], "validation": [{"image": "b"}]}', "a has no 'label'"),
        ('{"training": [{"image": "a", "label": "b"}], "validation": [{"image": "c"}]}', "the file .*a is missing"),
    ],
)
def test_a_broken_datalist_is_told(tmp_path, content, sentence):
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


def test_volumes_of_a_datalist_a_folder_and_a_file(tmp_path):
    folder = make_dataset(tmp_path, {"training": ["a"], "validation": ["b"], "test": ["c"]})
    assert [Path(case["image"]).name for case in data.volumes(folder)] == ["c_day1.nii.gz", "c_day2.nii.gz"]
    plain = tmp_path / "plain"
    (plain / "deep").mkdir(parents=True)
    for name in ("b.nii", "deep/a.nii.gz", "notes.txt"):
        (plain / name).touch()
    assert [Path(case["image"]).name for case in data.volumes(plain)] == ["b.nii", "a.nii.gz"]
    assert [Path(case["image"]).name for case in data.volumes(plain / "b.nii")] == ["b.nii"]


@pytest.mark.parametrize("name", ["empty", "missing", "empty/notes.txt"])
def test_nothing_to_segment_is_told(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match="has no volume; --dataset_dir must be"):
        data.volumes(tmp_path / name)
