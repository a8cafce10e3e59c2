"""What weights carry: in the header of their safetensors, and in the record beside them."""

import json

import pytest
import torch

from kvseg_monai.utils.safetensors_file import read_metadata
from kvseg_monai.utils.settings import SETTING, carried, default_of, read_settings, trained_settings
from kvseg_monai.utils.weights import save_whole

STATE = {"weight": torch.arange(4.0)}
SETTINGS = {
    "image_size": [64, 80],
    "slice_axis": "sagittal",
    "normalization": "zscore",
    "seed": 3,
    "network_def": {"_target_": "kvseg_monai.SETR", "size": "tiny", "in_channels": "$len(@slice_offsets)"},
}
FLAT = {"image_size": [64, 80], "slice_axis": "sagittal", "normalization": "zscore", "size": "tiny"}


def record(folder, name="training.json", **settings) -> None:
    (folder / name).write_text(json.dumps({"seconds": 1.0, "settings": {**SETTINGS, **settings}}))


def test_no_weights_carry_nothing_and_old_weights_were_used_in_the_old_way(tmp_path):
    assert trained_settings(tmp_path / "model.pt") == {}
    torch.save(STATE, tmp_path / "model.pt")
    assert trained_settings(tmp_path / "model.pt") == {"normalization": "percentiles", "slice_axis": "axial"}


def test_the_header_carries_what_using_the_weights_needs(tmp_path):
    save_whole(STATE, tmp_path / "model.pt", settings=carried(SETTINGS))
    assert trained_settings(tmp_path / "model.pt") == FLAT
    assert trained_settings([tmp_path / "model.pt", tmp_path / "other.pt"]) == FLAT
    (tmp_path / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert trained_settings(tmp_path / "alone.safetensors") == FLAT
    assert trained_settings(tmp_path / "model.pt") == {"normalization": "percentiles", "slice_axis": "axial"}
    assert "seed" not in read_metadata(tmp_path / "alone.safetensors")["settings"]


def test_the_record_counts_where_the_header_says_nothing(tmp_path):
    save_whole(STATE, tmp_path / "model.pt")
    record(tmp_path)
    assert trained_settings(tmp_path / "model.pt") == FLAT
    record(tmp_path, "training_candidate.json", image_size=[32, 32])
    assert trained_settings(tmp_path / "model.pt") == FLAT
    save_whole(STATE, tmp_path / "last.ckpt")
    assert trained_settings(tmp_path / "last.ckpt") == {**FLAT, "image_size": [32, 32]}


def test_weights_that_took_the_place_of_ours_have_no_part_in_our_record(tmp_path):
    save_whole(STATE, tmp_path / "model.pt", settings=carried(SETTINGS))
    record(tmp_path)
    torch.save({"weight": torch.ones(4)}, tmp_path / "model.pt")
    assert read_settings(tmp_path / "model.pt") == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}', '{"settings": {"image_size": "$x"}}'])
def test_a_record_that_says_nothing_is_none(content, tmp_path):
    torch.save(STATE, tmp_path / "model.pt")
    (tmp_path / "training.json").write_text(content)
    assert trained_settings(tmp_path / "model.pt") == {"normalization": "percentiles", "slice_axis": "axial"}


def test_an_options_default_stands_in_its_place():
    option = {"_target_": SETTING, "name": "image_size", "source": "@settings", "default": [256, 256]}
    assert (default_of(option), default_of([64, 64]), default_of(None)) == ([256, 256], [64, 64], None)
    assert carried({"image_size": option, "spacing": [1, 1]}) == {"spacing": [1, 1]}
