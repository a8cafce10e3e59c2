"""The example configurations laid over a bundle, as a user runs them: a stock MONAI network, and its KV form."""

import json
import sys
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNETR, SwinUNETR
from support import ROOT, config, run_here

EXAMPLES = ROOT / "bundles" / "examples"
CONFIGS = {"train": "train", "evaluate": "inference", "inference": "inference"}  # with their workflow types
NETWORKS = {"unetr": UNETR, "swin_unetr": SwinUNETR}
TINY = {"image_size": [64, 64], "slices_at_once": 4}
TINY_UNETR = {**TINY, **{f"stock_network#{name}": 24 for name in ("hidden_size", "mlp_dim")}}


def files(name: str, *examples: str) -> list[str]:
    return [config("setr_qkv_segmentation", name), *(str(EXAMPLES / f"{example}.json") for example in examples)]


def workflow(name: str, examples: tuple[str, ...], folder: Path, dataset: Path, **overrides):
    return monai.bundle.create_workflow(
        config_file=files(name, *examples),
        workflow_type=CONFIGS[name],
        bundle_root=str(folder),
        dataset_dir=str(dataset),
        **{**TINY, **overrides},
    )


def succeed(name: str, examples: tuple[str, ...], folder: Path, dataset: Path, *overrides: str) -> None:
    places = {"bundle_root": folder, "dataset_dir": dataset, **TINY_UNETR}
    options = [part for option, value in places.items() for part in (f"--{option}", str(value))]
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files(name, *examples)), *options]
    result = run_here([*line, *overrides], folder.parent)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("conversion", [(), ("kv",)])
def test_every_required_property_is_there_and_resolves(name, network, conversion, tmp_path, tiny_dataset):
    made = workflow(name, (network, *conversion), tmp_path, tiny_dataset)
    assert made.check_properties() == []
    found = made.parser.get_parsed_content("network_def").eval()
    assert type(found) is NETWORKS[network]
    assert any("KeyValue" in type(module).__name__ for module in found.modules()) is bool(conversion)
    with torch.no_grad():
        assert found(torch.rand(1, 1, 64, 64)).shape == (1, 4, 64, 64)
    if name == "train":
        assert made.parser.get_parsed_content("train#trainer").network is made.parser.get_parsed_content("network_def")


def test_the_two_arms_differ_in_the_conversion_alone():
    plain, converted = ConfigParser(), ConfigParser()
    plain.read_config(files("train", "unetr"))
    converted.read_config(files("train", "unetr", "kv"))
    changed = {name for name in converted.config if name not in plain or plain[name] != converted[name]}
    assert changed == {"network_def"}
    assert converted["network_def"]["network"] == plain["network_def"] == "@stock_network"


def test_classes_follow_the_stock_network(tmp_path, tiny_dataset):
    made = workflow("train", ("unetr", "kv"), tmp_path, tiny_dataset, **{"stock_network#out_channels": 6})
    assert made.parser.get_parsed_content("loading#3#num_classes") == 6
    assert made.parser.get_parsed_content("validate#postprocessing#transforms#0#to_onehot") == 6


def test_a_stock_network_is_trained_converted_and_trained_on(tmp_path, tiny_dataset):
    plain, kv = tmp_path / "plain", tmp_path / "kv"
    succeed("train", ("unetr",), plain, tiny_dataset, "--max_epochs", "1")
    trained = plain / "models" / "model.pt"

    start = ("--weights", str(trained), "--max_epochs", "1", "--validate_first", "true")
    succeed("train", ("unetr", "kv", "kv_from_weights"), kv, tiny_dataset, *start)
    succeed("evaluate", ("unetr", "kv"), kv, tiny_dataset)
    scores = json.loads((kv / "eval" / "metrics.json").read_text())
    assert [case["case"] for case in scores["cases"]] == ["case6"]
    before, after = (torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (plain, kv))
    assert any("qkv" in name for name in before)
    assert not any("qkv" in name for name in after)

    made = workflow("train", ("unetr", "from_weights"), tmp_path, tiny_dataset, **TINY_UNETR, weights=str(trained))
    made.initialize()
    torch.testing.assert_close(made.parser.get_parsed_content("network_def").state_dict(), before)


@pytest.mark.parametrize(
    ("overrides", "spread"),
    [
        ({"network_def#images": "$None"}, (0, 0)),  # the weights alone: whatever the seed
        ({}, (0.01, 0.6)),  # a batch of images, drawn at random
        ({"network_def#images": "$None", "network_def#warm_start": False}, (0.7, 2)),  # a fresh key
    ],
)
def test_how_the_key_starts(overrides, spread, tmp_path, tiny_dataset):
    stock = workflow("train", ("unetr",), tmp_path, tiny_dataset, **TINY_UNETR).parser.get_parsed_content("network_def")
    (tmp_path / "models").mkdir()
    torch.save(stock.state_dict(), tmp_path / "models" / "pretrained.pt")
    logits, values = [], []
    for seed in (1, 2):
        options = {**TINY_UNETR, **overrides, "seed": seed}
        made = workflow("train", ("unetr", "kv", "kv_from_weights"), tmp_path, tiny_dataset, **options)
        attention = made.parser.get_parsed_content("network_def").vit.blocks[0].attn
        logits.append(attention.key.weight.mT @ attention.key.weight)
        values.append(attention.value.weight)
    assert spread[0] <= (logits[0] - logits[1]).norm() / logits[0].norm() <= spread[1]
    assert torch.equal(*values)
