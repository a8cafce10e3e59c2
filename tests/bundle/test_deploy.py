"""Weights installed as the model of a bundle: strictly, and the earlier kept."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from label_server import save_weights
from monai.bundle import ConfigParser
from support import ROOT, names_in

from kvseg_monai.bundle.deploy import deploy
from kvseg_monai.errors import InputError

NAME = "setr_kv_segmentation"


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A copy of a bundle whose network is tiny by default."""
    folder = tmp_path / NAME
    shutil.copytree(ROOT / "bundles" / NAME / "configs", folder / "configs")
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.update({"network_def#size": "tiny", "image_size": [64, 64]})
    (folder / "configs" / "inference.json").write_text(json.dumps(parser.config))
    return folder


def test_weights_are_installed_and_the_earlier_again(bundle, tmp_path):
    first, second = (save_weights(NAME, tmp_path / f"{seed}.pt", seed=seed) for seed in (1, 2))
    model = deploy(bundle, first)
    assert model == bundle / "models" / "model.pt"
    (bundle / "models" / "training.json").write_text('{"epochs": 7}')
    deploy(bundle, second)
    (kept,) = (bundle / "models").glob("model_*.pt")
    assert not (bundle / "models" / "training.json").exists()
    there = {name.partition("_")[0] for name in names_in(bundle / "models")}
    assert there == {"model.pt", "model.safetensors", "model", "training"}
    deploy(bundle, kept)
    states = [torch.load(path, weights_only=True) for path in (first, model)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert json.loads((bundle / "models" / "training.json").read_text()) == {"epochs": 7}


def test_what_somebody_else_wrote_beside_the_model_is_kept(bundle, tmp_path):
    (bundle / "models").mkdir()
    (bundle / "models" / "training.json").write_text("notes of mine")
    elsewhere = tmp_path / "elsewhere.pt"
    elsewhere.write_bytes(b"another's")
    (bundle / "models" / "model.pt").symlink_to(elsewhere)
    deploy(bundle, save_weights(NAME, tmp_path / "weights.pt"))
    assert elsewhere.read_bytes() == b"another's"
    assert [path.read_text() for path in (bundle / "models").glob("training_*.json")] == ["notes of mine"]
    assert not (bundle / "models" / "training.json").exists()
    assert not (bundle / "models" / "model.pt").is_symlink()


def test_the_same_weights_again_change_nothing(bundle, tmp_path):
    weights = save_weights(NAME, tmp_path / "weights.pt")
    deploy(bundle, weights)
    deploy(bundle, weights)
    assert names_in(bundle / "models") == ["model.pt", "model.safetensors"]


def test_a_damaged_model_is_replaced_and_kept(bundle, tmp_path):
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"damaged")
    deploy(bundle, save_weights(NAME, tmp_path / "weights.pt"))
    assert [path.read_bytes() for path in (bundle / "models").glob("model_*.pt")] == [b"damaged"]


@pytest.mark.parametrize("options", [{"attention": "qkv"}, {"size": "small"}, {"out_channels": 3}])
def test_weights_of_another_network_are_refused(bundle, tmp_path, options):
    weights = save_weights(NAME, tmp_path / "weights.pt", **options)
    with pytest.raises(InputError, match="holds the weights of another network"):
        deploy(bundle, weights)
    assert not (bundle / "models").exists()


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match=r"inference\.json is missing; give the folder of a bundle"):
        deploy(tmp_path, tmp_path / "weights.pt")
