"""Every bundle, by MONAI's own tools: configurations, metadata, network, export, overrides, drift."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, create_workflow
from support import BUNDLES, ROOT, config

WORKFLOWS = {"train": "train", "evaluate": "inference", "inference": "inference"}
LOADER = "kvseg_monai.transforms.LoadVolumed"
HASH = "06954cad2cc5d3784e72077ac76f0fc8"
TINY = {"network_def#size": "tiny", "image_size": [64, 64]}


def workflow(bundle: str, name: str, tmp_path: Path, dataset: Path, **overrides):
    return create_workflow(
        config_file=config(bundle, name),
        workflow_type=WORKFLOWS[name],
        bundle_root=str(tmp_path),
        dataset_dir=str(dataset),
        **{**TINY, **overrides},
    )


def test_the_bundles_are_all_there():
    folders = sorted(path.parent.parent.name for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
    assert folders == sorted(BUNDLES)
    assert len(folders) == 9
    for bundle in folders:
        found = {str(path.relative_to(ROOT / "bundles" / bundle)) for path in (ROOT / "bundles" / bundle).rglob("*.*")}
        configs = {f"configs/{name}.json" for name in (*WORKFLOWS, "metadata", "multi_gpu_train")}
        assert found >= configs | {"configs/logging.conf", "docs/README.md", "docs/data_license.txt"}
        assert (ROOT / "bundles" / bundle / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_no_bundle_drifted_from_its_templates():
    command = [sys.executable, str(ROOT / "bundles" / "render.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.fixture
def render_here(monkeypatch, capsys):
    """The program in this process: with the folders of a copy, and each network counted once."""
    specification = spec_from_file_location("render", ROOT / "bundles" / "render.py")
    module = module_from_spec(specification)
    specification.loader.exec_module(module)

    def run(*arguments: str, root: Path) -> tuple[int, str]:
        monkeypatch.setattr(module, "HERE", root / "bundles")
        code = module.main(arguments)
        return code, capsys.readouterr().err

    return run


def test_drift_is_found_and_rendering_mends_it(render_here, tmp_path):
    for name in ("LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles", ignore=shutil.ignore_patterns("models", "eval"))
    changed = tmp_path / "bundles" / BUNDLES[0] / "configs" / "train.json"
    changed.write_text(changed.read_text().replace('"holdout": 0.2', '"holdout": 0.3'))
    (changed.parent / "stray.json").write_text("{}")
    code, reported = render_here("--check", root=tmp_path)
    assert code == 1
    assert f"bundles/{BUNDLES[0]}/configs/train.json differs from the templates" in reported
    assert f"bundles/{BUNDLES[0]}/configs/stray.json is in no template" in reported
    weights = tmp_path / "bundles" / BUNDLES[0] / "models" / "model.pt"
    weights.parent.mkdir()
    weights.write_text("trained")
    assert render_here(root=tmp_path)[0] == 0
    assert ((changed.parent / "stray.json").read_text(), weights.read_text()) == ("{}", "trained")
    assert render_here("--check", root=tmp_path)[1].count("\n") == 1
    (changed.parent / "stray.json").unlink()
    assert render_here("--check", root=tmp_path)[0] == 0


@pytest.mark.parametrize("name", [*WORKFLOWS, "multi_gpu_train"])
def test_two_bundles_differ_in_their_network_alone(name):
    """Of one net, in the attention's name; of two nets, in ``network_def`` and how fast the queries' biases learn."""
    configs = {bundle: json.loads(Path(config(bundle, name)).read_text()) for bundle in BUNDLES}
    networks = {bundle: content.pop("network_def", {}) for bundle, content in configs.items()}
    rates = {bundle: content.pop("query_bias_lr_scale", None) for bundle, content in configs.items()}
    assert all(content == configs[BUNDLES[0]] for content in configs.values())
    for bundle, network in networks.items():
        reference = re.sub("_(kv_pos|kv)_", "_qkv_", bundle)
        reference_network = networks[reference]
        assert rates[bundle] == rates[reference]
        assert [key for key in network if network[key] != reference_network[key]] in ([], ["attention"])
        assert bool(network == reference_network) == (name == "multi_gpu_train" or "_qkv_" in bundle)


def test_the_table_of_bundles_knows_every_size():
    table = yaml.safe_load((ROOT / "bundles" / "bundles.yaml").read_text())
    for name, net in table["networks"].items():
        assert list(net["sizes"]) == list(import_module(f"kvseg_monai.nets.{name.lower()}").PRESETS)


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_required_property_is_there_and_resolves(bundle, name, tmp_path, tiny_dataset):
    made = workflow(bundle, name, tmp_path, tiny_dataset)
    assert made.check_properties() == []
    runner = made.parser.get_parsed_content("train#trainer" if name == "train" else "evaluator")
    assert isinstance(runner, monai.engines.SupervisedTrainer if name == "train" else monai.engines.SupervisedEvaluator)
    net, attention = bundle.removesuffix("_segmentation").split("_", 1)
    assert made.parser["network_def"]["attention"] == attention
    assert made.parser["network_def"]["_target_"].lower() == f"kvseg_monai.{net}"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_fits_monais_schema(bundle, schema):
    monai.bundle.verify_metadata(
        meta_file=config(bundle, "metadata"), filepath=str(schema), hash_val=HASH, hash_type="md5"
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_network_fits_its_metadata(bundle):
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=config(bundle, "metadata"),
        config_file=config(bundle, "inference"),
        device="cpu",
    )


@pytest.mark.parametrize("use_trace", [True, False])
@pytest.mark.parametrize("bundle", BUNDLES)
def test_checkpoint_export(bundle, use_trace, tmp_path):
    parser = ConfigParser()
    parser.read_config(config(bundle, "inference"))
    parser.update(TINY)
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=config(bundle, "metadata"),
        config_file=config(bundle, "inference"),
        use_trace=use_trace,
        input_shape=[1, 1, 64, 64],
        **TINY,
    )
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        exported = torch.jit.load(tmp_path / "model.ts").eval()
        torch.testing.assert_close(exported(image), network(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("override", "attribute", "value"),
    [
        ({"network_def#size": "small"}, "encoder.embedding.projection.out_channels", 384),
        ({"network_def#decoder": "mla"}, "decoder.__class__.__name__", "MLADecoder"),
        ({"network_def#attention": "qk"}, "encoder.blocks.0.attention.value", None),
        ({"network_def#patch_size": 8}, "encoder.stride", 8),
        ({"network_def#dropout": 0.2}, "encoder.embedding.dropout.p", 0.2),
        ({"slice_offsets": [-1, 0, 1]}, "encoder.embedding.projection.in_channels", 3),
    ],
)
def test_plain_overrides_reach_the_network(override, attribute, value, tmp_path, tiny_dataset):
    found = workflow(BUNDLES[0], "train", tmp_path, tiny_dataset, **override).parser.get_parsed_content("network_def")
    for name in attribute.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    assert found == value


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_bundle_trains_scores_and_predicts(bundle, tmp_path, tiny_dataset):
    """Through `create_workflow`; `test_training.py` runs one bundle of each net as a user does."""
    for name in WORKFLOWS:
        epochs = {"max_epochs": 1} if name == "train" else {}
        made = workflow(bundle, name, tmp_path, tiny_dataset, output_dir=str(tmp_path / name), **epochs)
        made.initialize()
        made.run()
        made.finalize()
    assert (tmp_path / "models" / "model.pt").is_file()
    scores = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert 0 <= scores["mean"]["dice"] <= 1
    scored = nib.load(tmp_path / "evaluate" / "predictions" / "case6.nii.gz")
    predicted = nib.load(tmp_path / "inference" / "case6.nii.gz")
    np.testing.assert_array_equal(np.asarray(scored.dataobj), np.asarray(predicted.dataobj))  # scored as shipped


def test_epochs_and_learning_rate_are_plain_overrides(tmp_path, tiny_dataset):
    parser = workflow(BUNDLES[0], "train", tmp_path, tiny_dataset, max_epochs=3, learning_rate=0.5).parser
    assert parser.get_parsed_content("train#trainer").state.max_epochs == 3
    assert parser.get_parsed_content("optimizer").defaults["lr"] == 0.5
    assert parser.get_parsed_content("steps") == 3  # one batch of four volumes per epoch


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("workflow", ["train", "evaluate", "inference"])
def test_every_workflow_checks_right_after_loading(bundle, workflow):
    """Images everywhere, and labels where there are some."""
    lists = list(transform_lists(json.loads(Path(config(bundle, workflow)).read_text())))
    loading = [names for names in lists if LOADER in names]
    checks = ["kvseg_monai.transforms.CheckVolumed", "kvseg_monai.transforms.CheckLabelsd"]
    checks = checks[:1] if workflow == "inference" else checks
    assert loading
    for names in loading:
        place = names.index(LOADER) + 1
        assert names[place : place + len(checks)] == checks


def transform_lists(part: object) -> Iterator[list[str]]:
    """The names in each list of transforms of a configuration."""
    if isinstance(part, list):
        yield [item["_target_"] for item in part if isinstance(item, dict) and "_target_" in item]
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from transform_lists(item)
