"""Weights carry how they were trained: what uses them needs no override, and an override wins."""

import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import pytest
from monai.bundle import ConfigParser, create_workflow
from support import ROOT, config, names_in

from kvseg_monai.bundle.deploy import deploy
from kvseg_monai.bundle.pack import pack
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.plan import settings_of_weights
from kvseg_monai.report.inspection import open_config
from kvseg_monai.utils.settings import read_settings, trained_settings

NAME = "setr_kv_segmentation"
CHOSEN = {
    **{"image_size": [48, 64], "spacing": [3.0, 3.0], "slice_axis": "coronal", "normalization": "zscore"},
    **{"patch_size": 8, "volumes_per_batch": 2, "slices_per_volume": 2, "max_epochs": 1, "steps_per_epoch": 2},
}
CARRIED = {
    **{name: CHOSEN[name] for name in ("image_size", "spacing", "slice_axis", "normalization", "patch_size")},
    **{"slice_offsets": [-1, 0, 1], "size": "tiny", "out_channels": 4, "decoder": "naive"},
}


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory) -> Path:
    """A folder with a data set and its plan, and the weights of a training by it."""
    folder = tmp_path_factory.mktemp("trained")
    data = shutil.copytree(tiny_dataset, folder / "data")
    settings = {name: {"value": value, "reason": "for a test"} for name, value in CHOSEN.items()}
    (data / "plan.json").write_text(json.dumps({"kvseg_monai": "0.2.0", "settings": settings}))
    options = {"network_def#size": "tiny", "network_def#decoder": "naive", "slice_offsets": [-1, 0, 1]}
    run("train", folder, "train", **options)
    return folder


def run(name: str, folder: Path, kind: str = "inference", **overrides: object) -> ConfigParser:
    workflow = create_workflow(
        config_file=config(NAME, name), workflow_type=kind, logging_file=False,
        **{"bundle_root": str(folder), "dataset_dir": str(folder / "data"), **overrides},
    )  # fmt: skip
    workflow.run()
    return workflow.parser


def test_the_record_and_the_header_say_the_same(trained):
    record = json.loads((trained / "models" / "training.json").read_text())["settings"]
    found = trained_settings(trained / "models" / "model.pt")
    assert found.items() >= CARRIED.items()
    assert (record["network_def"]["patch_size"], record["network_def"]["in_channels"]) == (8, 3)
    assert (record["max_epochs"], record["steps_per_epoch"], record["volumes_per_batch"]) == (1, 2, 2)
    (trained / "alone").mkdir(exist_ok=True)
    alone = shutil.copy(trained / "models" / "model.safetensors", trained / "alone" / "weights.safetensors")
    assert trained_settings(alone) == found


def test_evaluation_and_inference_need_no_override(trained, tmp_path):
    parser = run("evaluate", trained, output_dir=str(tmp_path / "eval"))
    places = {name: name if name in CHOSEN and name != "patch_size" else f"network_def#{name}" for name in CARRIED}
    places["slice_offsets"] = "slice_offsets"
    assert {name: parser.get_parsed_content(place) for name, place in places.items()} == CARRIED
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["manifest"]["settings"]["slice_axis"] == "coronal"
    run("inference", trained, output_dir=str(tmp_path / "maps"))
    assert names_in(tmp_path / "maps") == ["case6.nii.gz"]
    assert nib.load(tmp_path / "maps" / "case6.nii.gz").shape == (70, 60, 6)


def test_an_override_wins_and_another_network_is_refused(trained, tmp_path):
    parser = run("inference", trained, output_dir=str(tmp_path / "maps"), spacing=[2.0, 2.0])
    assert parser.get_parsed_content("spacing") == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:
        run("inference", trained, output_dir=str(tmp_path / "other"), **{"network_def#size": "small"})
    assert "holds the weights of another network" in str(find_input_error(caught.value))


def test_weights_without_a_record_are_used_by_the_defaults(trained, tmp_path):
    (tmp_path / "models").mkdir()
    shutil.copy(trained / "models" / "model.pt", tmp_path / "models")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:
        run("inference", tmp_path, dataset_dir=str(trained / "data"))
    assert "holds the weights of another network" in str(find_input_error(caught.value))


def test_before_there_are_weights_the_plan_counts(trained, tmp_path):
    """As on a client of federated training, whose evaluation is set up before it is given any."""
    assert settings_of_weights(tmp_path / "model.pt", trained / "data")["image_size"] == [48, 64]
    assert settings_of_weights(tmp_path / "model.pt", tmp_path) == {}


def test_a_packed_bundle_has_them_as_its_own(trained, tmp_path):
    archive = pack(ROOT / "bundles" / NAME, tmp_path, weights=trained / "models" / "model.pt")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / NAME
    for name in ("train", "inference", "evaluate"):
        content = ConfigParser(json.loads((folder / "configs" / f"{name}.json").read_text()))
        options = ("image_size", "spacing", "slice_axis", "slice_offsets", "network_def#size", "network_def#patch_size")
        assert [content[option] for option in options] == [[48, 64], [3.0, 3.0], "coronal", [-1, 0, 1], "tiny", 8]
        assert content["network_def#attention"] == "kv"
    assert read_settings(folder / "models" / "model.pt")["network_def"]["decoder"] == "naive"
    changed = pack(ROOT / "bundles" / NAME, tmp_path / "b", weights=trained / "models" / "model.pt",
                   overrides={"spacing": [2.0, 2.0]})  # fmt: skip
    with zipfile.ZipFile(changed) as packed:
        content = json.loads(packed.read(f"{NAME}/configs/inference.json"))
    assert (content["spacing"], content["image_size"]) == ([2.0, 2.0], [48, 64])


def test_deployed_weights_bring_them_along(trained, tmp_path):
    bundle = tmp_path / NAME
    shutil.copytree(ROOT / "bundles" / NAME / "configs", bundle / "configs")
    model = deploy(bundle, trained / "models" / "model.pt")
    assert trained_settings(model).items() >= CARRIED.items()
    (bundle / "models" / "training.json").unlink()
    assert trained_settings(model).items() >= CARRIED.items()
    other = tmp_path / "transunet"
    shutil.copytree(ROOT / "bundles" / "transunet_kv_segmentation" / "configs", other / "configs")
    with pytest.raises(InputError, match="holds the weights of another network"):
        deploy(other, trained / "models" / "model.pt")


def test_reports_open_the_network_that_was_trained(trained):
    weights = str(trained / "models" / "model.pt")
    opened = open_config(str(ROOT / "bundles" / NAME), {"normalization": "percentiles"}, weights=weights)
    assert [opened.get_parsed_content(name) for name in ("image_size", "slice_axis", "normalization")] == [
        *([48, 64], "coronal", "percentiles"),
    ]


def test_a_training_that_is_gone_on_with_keeps_its_plan(trained, tmp_path):
    folder = Path(shutil.copytree(trained, tmp_path / "again"))
    options = {"network_def#size": "tiny", "network_def#decoder": "naive", "slice_offsets": [-1, 0, 1]}
    parser = run("train", folder, "train", resume=True, max_epochs=2, **options)
    assert parser.get_parsed_content("train#trainer").state.iteration == 4
    assert trained_settings(folder / "models" / "last.ckpt").items() >= CARRIED.items()
