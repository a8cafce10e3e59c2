"""The plan's file: written by the command, read by the training, refused where it is none."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from support import config

from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.plan import planned_settings, read_plan
from kvseg_monai.plan.__main__ import main, make_plan
from kvseg_monai.utils.records import RECORD

PLAN = {"kvseg_monai": "0.2.0", "settings": {"image_size": {"value": [64, 80], "reason": "small"}}}


@pytest.fixture
def data(tiny_dataset, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_dataset, tmp_path / "data"))


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_command_writes_explains_and_names_no_patient(data, capsys):
    main([str(data)])
    output = capsys.readouterr()
    plan = read_plan(data / "plan.json")
    assert (plan.cases, plan.values()["out_channels"]) == (6, 4)
    assert plan.values()["spacing"] == [1.5, 1.5]
    assert all(chosen["reason"] for chosen in plan.chosen().values())
    for name in plan.values():
        assert name in output.out
    assert f"kvseg train setr_kv --dataset_dir {data}" in output.out
    assert "person" not in output.out + output.err + (data / "plan.json").read_text()
    assert "plan.json" in (data / RECORD).read_text()
    first = (data / "plan.json").read_bytes()
    main([str(data)])  # the same again, over its own file
    assert (data / "plan.json").read_bytes() == first


def test_test_cases_are_not_read(data):
    (data / "images" / "case6.nii.gz").unlink()
    make_plan(data)


def test_what_cannot_be_measured_is_left_out_with_a_sentence(data, caplog):
    (data / "images" / "case0.nii.gz").write_bytes(b"nothing")
    make_plan(data)
    assert "left out: " in caplog.text
    assert read_plan(data / "plan.json").cases == 5


def test_nothing_else_is_replaced(data, tmp_path):
    (data / "plan.json").write_text("mine")
    with pytest.raises(InputError, match="was not written by kvseg_monai"):
        make_plan(data)
    assert (data / "plan.json").read_text() == "mine"
    with pytest.raises(InputError, match=r"does not end in \.json"):
        make_plan(data, tmp_path / "plan.txt")
    make_plan(data, tmp_path / "other.json")
    assert read_plan(tmp_path / "other.json").cases == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ([], "is no plan of kvseg_monai"),
        ({"labels": {}}, "is no plan of kvseg_monai"),
        ({**PLAN, "more": 1}, "more is 1; extra inputs are not permitted"),
        ({**PLAN, "settings": {"imagesize": {"value": 1}}}, "settings, imagesize"),
        ({**PLAN, "settings": {"image_size": {"value": [60, 64]}}}, "image_size, value, 0 is 60; .*multiple of 16"),
        ({**PLAN, "settings": {"image_size": {"value": 64}}}, "image_size, value is 64"),
        ({**PLAN, "settings": {"spacing": {"value": [0, 1]}}}, "spacing, value, 0 is 0; .*0.05"),
        ({**PLAN, "settings": {"slice_axis": {"value": "z"}}}, "slice_axis, value is \"z\"; .*'sagittal'"),
        ({**PLAN, "settings": {"normalization": {"value": "none"}}}, "normalization, value is .*'zscore'"),
        ({**PLAN, "settings": {"max_epochs": {"value": 0}}}, "max_epochs, value is 0"),
        ({**PLAN, "settings": {"volumes_per_batch": {"value": 2.5}}}, "volumes_per_batch, value is 2.5"),
    ],
)
def test_what_is_no_plan_is_refused_in_a_sentence(content, message, tmp_path):
    path = written(tmp_path / "plan.json", content)
    with pytest.raises(InputError, match=f"^{path}.*{message}.*make it again"):
        read_plan(path)


def test_which_plan_counts(data, tmp_path):
    other = written(tmp_path / "other.json", {**PLAN, "settings": {"image_size": {"value": [96, 96]}}})
    assert planned_settings("auto", data) == {}
    written(data / "plan.json", PLAN)
    assert planned_settings("auto", data) == {"image_size": [64, 80]}
    assert planned_settings(str(other), data) == {"image_size": [96, 96]}
    for nothing in ("none", "None", None, "null"):
        assert planned_settings(nothing, data) == {}
    with pytest.raises(InputError, match=r"nowhere\.json is missing"):
        planned_settings("nowhere.json", data)


def opened(data: Path, **overrides: object) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config("setr_kv_segmentation", "train"))
    parser.update({"dataset_dir": str(data), **overrides})
    return parser


def test_training_takes_the_plan_and_an_override_wins(data, caplog):
    caplog.set_level(logging.INFO)
    settings = {
        "image_size": {"value": [64, 80]},
        "patch_size": {"value": 8},
        "out_channels": {"value": 3},
        "max_epochs": {"value": 7},
        "volumes_per_batch": {"value": 2},
        "slice_axis": {"value": "coronal"},
    }
    written(data / "plan.json", {**PLAN, "settings": settings, "datalist": "another"})
    parser = opened(data, **{"network_def#size": "tiny", "image_size": [32, 32]})
    places = ("image_size", "network_def#patch_size", "num_classes", "max_epochs", "volumes_per_batch", "slice_axis")
    assert [parser.get_parsed_content(place) for place in places] == [[32, 32], 8, 3, 7, 2, "coronal"]
    assert f"by the plan {data / 'plan.json'}, but for image_size [32, 32] instead of [64, 80]; --plan" in caplog.text
    assert "was made for another datalist" in caplog.text
    record = parser.get_parsed_content("record")["settings"]
    assert (record["image_size"], record["max_epochs"], record["slice_axis"]) == ([32, 32], 7, "coronal")
    assert record["network_def"]["patch_size"] == 8
    assert record["network_def"]["img_size"] == [32, 32]


def test_without_a_plan_all_is_as_it_was(data):
    parser = opened(data)
    places = ("image_size", "spacing", "normalization", "max_epochs", "steps_per_epoch", "volumes_per_batch")
    assert [parser.get_parsed_content(place) for place in places] == [
        *([256, 256], [1.5, 1.5], "zscore", 400, None, 16),
    ]
    assert parser.get_parsed_content("network_def#out_channels") == 4


def test_a_broken_plan_stops_the_training_in_a_sentence(data):
    written(data / "plan.json", "{")
    with pytest.raises(Exception, match="planned_settings") as caught:
        opened(data).get_parsed_content("image_size")
    assert "is not valid JSON" in str(find_input_error(caught.value))
