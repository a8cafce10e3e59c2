"""What a datalist may hold, and what is reported of one that is wrong; files need not be there for it."""

import json
import os
from pathlib import Path

import pytest

from kvseg_monai.data.datalist import SYNONYMS, read_datalist
from kvseg_monai.data.dataset import cases, class_names, volumes
from kvseg_monai.errors import InputError


def write(folder: Path, **content) -> Path:
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("section", "name"), [(section, n) for section, names in SYNONYMS.items() for n in names])
def test_lists_have_the_names_that_other_tools_give_them(tmp_path, section, name):
    for spelt in (name, name.upper()):
        found = read_datalist(write(tmp_path, **{spelt: ["./imagesTs/a.nii.gz"]}))
        assert found[section] == [{"image": "imagesTs/a.nii.gz"}]


def test_a_decathlon_and_an_auto3dseg_datalist_are_read_whole(tmp_path):
    pair = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    found = read_datalist(
        write(tmp_path, modality={"0": "MRI"}, numTraining=1, training=[pair], test=["./imagesTs/b.nii.gz"])
    )
    assert found["training"] == [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
    assert found["test"] == [{"image": "imagesTs/b.nii.gz"}]
    folds = [{"image": f"{n}.nii", "label": f"{n}_seg.nii", "fold": n % 2} for n in range(4)]
    assert len(read_datalist(write(tmp_path, training=folds, testing=[{"image": "t.nii"}]))["training"]) == 4


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "datalist.json").write_text('{"test": ["a"]}', encoding="utf-8-sig")
    assert read_datalist(tmp_path)["test"] == [{"image": "a"}]


@pytest.mark.parametrize(
    "text",
    ["/etc/a.nii", "../a.nii", "a/../../b.nii", "a/..", "C:\\a.nii", "C:a.nii", "..\\a.nii", "\\\\host\\a.nii"],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_paths_lead_below_the_datalist(tmp_path, key, text):
    entry = {"image": "a.nii", "label": "b.nii", key: text}
    with pytest.raises(InputError, match=r"neither absolute nor with '..'.*--base_dir"):
        read_datalist(write(tmp_path, training=[entry]))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"test": ["a"], "testing": ["b"]}, "'test', 'testing', which all mean the test list"),
        ({"train": [], "Training": []}, "which all mean the training list"),
        ({"test": None}, "'test' is null; it must be a list"),
        ({"test": 5}, "'test' is 5; it must be a list"),
        ({"test": [["a"]]}, "entry 1 is a list; each must be"),
        ({"test": ["a", None]}, "test, entry 2 is null; each must be"),
        ({"test": [{"image": None}]}, "the image is None; it must be the path of one file"),
        ({"test": [{"image": ["a", "b"]}]}, r"the image is \['a', 'b'\]; it must be the path of one file"),
        ({"test": [{"image": "a\0b"}]}, "it must be the path of one file"),
        ({"test": ["\ud800"]}, "it must be the path of one file"),
        ({"test": [{"image": "a", "patient": "\udcff"}]}, "it must be a text or a whole number"),
        ({"test": [""]}, "the image is ''; it must be the path"),
        ({"test": ["./"]}, "the image is './'; it must be the path"),
        ({"test": [{"image": "a", "label": 1}]}, "the label is 1; it must be the path"),
        ({"test": [{"image": "a", "patient": None}]}, "the patient is null; it must be a text or a whole number"),
        ({"test": [{"image": "a", "patient": True}]}, "the patient is true"),
        ({"test": [{"image": "a", "patient": {"name": "X"}}]}, "the patient is an object with 'name'"),
        ({"test": [{"image": "a", "patient": " "}]}, "the patient is"),
        ({"notice": ["x"]}, "'notice' is .*; it must be a text"),
    ],
)
def test_wrong_shapes_are_reported_by_every_reader(tmp_path, content, sentence):
    write(tmp_path, **content)
    for read in (read_datalist, volumes, lambda folder: cases(folder, "test"), lambda f: class_names(f, ["x"])):
        with pytest.raises(InputError, match=sentence):
            read(tmp_path)


@pytest.mark.parametrize("text", ['{"test": ["a"], "test": ["b"]}', '{"test": [{"image": "a", "image": "b"}]}'])
def test_a_key_that_is_there_twice_is_reported(tmp_path, text):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(InputError, match=r"the key '(test|image)' is there twice"):
        read_datalist(tmp_path)


def test_nesting_without_end_is_reported(tmp_path):
    (tmp_path / "datalist.json").write_text('{"test": ' + "[" * 100_000)
    with pytest.raises(InputError, match="is not valid JSON"):
        read_datalist(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"training": ["a", "./a"]},
        {"training": [{"image": "a", "patient": "p"}], "test": ["b", ".//a"]},
        {"training": [{"image": "a", "patient": "p"}, {"image": "a", "patient": "q"}]},
        {"training": ["a"], "unlabelled": ["a"]},
        {"training": [{"image": "a", "label": "l"}, {"image": "b", "label": "./l"}]},
        {"training": [{"image": "a", "label": "a"}]},
    ],
)
def test_a_file_is_named_once(tmp_path, content):
    with pytest.raises(InputError, match=r"one file is there twice .* name each image once"):
        read_datalist(write(tmp_path, **content))


def test_one_image_under_two_names_is_refused_and_one_label_map_is_not(tmp_path):
    for name in ("a", "b", "label"):
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "a", tmp_path / "hard")
    (tmp_path / "soft").symlink_to("a")
    (tmp_path / "empty").symlink_to("label")  # as git-annex keeps two equal label maps
    for name in ("hard", "soft"):
        with pytest.raises(InputError, match=f"one file is there twice .a in training; {name} in test"):
            read_datalist(write(tmp_path, training=["a"], test=[name]))
    pairs = [{"image": "a", "label": "label"}, {"image": "b", "label": "empty"}]
    assert len(read_datalist(write(tmp_path, training=pairs))["training"]) == 2


def test_patients_are_compared_as_text(tmp_path):
    entries = {"training": [{"image": "a", "patient": 1}], "test": [{"image": "b", "patient": "1"}]}
    with pytest.raises(InputError, match="patient 1 is in training and in test"):
        read_datalist(write(tmp_path, **entries))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"0": "background", "1": "liver"}, ["liver"]),
        ({"background": 0, "liver": 1}, ["liver"]),  # nnU-Net
        ({"0": "background"}, []),
        ({}, ["x"]),
        (None, ["x"]),
    ],
)
def test_label_tables(tmp_path, labels, names):
    assert class_names(write(tmp_path, labels=labels), ["x"]) == names


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["background", "liver"], "'labels' is .*; it must be"),
        ("liver", "'labels' is 'liver'; it must be"),
        ({"0": "background", "one": "x"}, "'labels' has 'one' for 'x'; it must be"),
        ({"whole": [1, 2]}, "'labels' has"),
        ({"0": "background", "1": None}, "'labels' has '1' for None"),
        ({"0": "background", "1.5": "a"}, "'labels' has '1.5' for 'a'"),
        ({"0": "background", "1": "a", "01": "b"}, r"the label values are \[0, 1, 1\]"),
        ({"0": "background", "1": "a", "2": "a"}, "two labels have one name"),
    ],
)
def test_wrong_label_tables_are_reported(tmp_path, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        class_names(write(tmp_path, labels=labels), ["x"])
