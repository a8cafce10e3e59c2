"""A packed bundle: taken by MONAI's download, run elsewhere with no override, the same label map voxel for voxel."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from support import BUNDLES, ROOT, TINY, config, make_volume, names_in, run_here

import kvseg_monai
from kvseg_monai.bundle.pack import main
from kvseg_monai.errors import InputError, run_command

NAME = "setr_kv_segmentation"
BUNDLE = ROOT / "bundles" / NAME
WEIGHTS = {f"models/{name}" for name in ("model.pt", "model.pt.sha256", "model.safetensors")}
FILES = {f"configs/{name}.json" for name in ("train", "evaluate", "inference", "multi_gpu_train", "metadata")}
FILES |= {"configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE"}
SCHEMA_HASH = "06954cad2cc5d3784e72077ac76f0fc8"


def save_weights(path: Path, out_channels: int = 4, *, net: str = "SETR", in_channels: int = 1, **options) -> Path:
    torch.manual_seed(0)
    network = getattr(kvseg_monai, net)(in_channels, out_channels, 64, size="tiny", **options)
    for parameter in network.decoder.parameters():  # as they start, one class wins everywhere
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "trained.pt")


@pytest.fixture(scope="module")
def packed(weights, tmp_path_factory) -> Path:
    """The zip, made on the command line."""
    target = tmp_path_factory.mktemp("packed")
    line = [sys.executable, "-m", "kvseg_monai.pack", NAME, "--weights", str(weights), "--target", str(target), *TINY]
    result = run_here(line, ROOT)
    assert result.returncode == 0, result.stderr
    archive = target / f"{NAME}_v{kvseg_monai.__version__}.zip"
    assert f"sha256 {hashlib.sha256(archive.read_bytes()).hexdigest()}" in result.stdout
    return archive


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(make_volume(3)[0], np.diag([-1.5, 1.5, 3, 1])), path)
    return path


@pytest.fixture(scope="module")
def expected(weights, scan, tmp_path_factory) -> nib.Nifti1Image:
    """The label map of the bundle as it is in the repository, with the overrides."""
    folder = tmp_path_factory.mktemp("original")
    options = {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4, "ckpt_path": str(weights)}
    roots = {"bundle_root": str(folder), "dataset_dir": str(scan)}
    create_workflow(config_file=config(NAME, "inference"), workflow_type="inference", **roots, **options).run()
    return nib.load(folder / "eval" / "scan.nii.gz")


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder / archive.name.rpartition("_v")[0]


CLOSED = {f"{protocol}_proxy": "http://127.0.0.1:9" for protocol in ("http", "https")}  # no way to the internet


def download(archive: Path) -> list[str]:
    return ["download", "--name", NAME, "--source", "github", "--url", archive.as_uri(), "--bundle_dir", "."]


def inference(scan: Path) -> list[str]:
    config_file = f"{NAME}/configs/inference.json"
    return ["run", "--config_file", config_file, "--bundle_root", NAME, "--dataset_dir", str(scan)]


def run_elsewhere(python: str | Path, arguments: list[str], folder: Path, **environment: str) -> None:
    """Run MONAI's command in a folder, with nothing of this environment."""
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", **CLOSED, **environment}
    line = [str(python), "-m", "monai.bundle", *arguments]
    result = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def assert_same_label_map(folder: Path, expected: nib.Nifti1Image) -> None:
    made = nib.load(folder / NAME / "eval" / "scan.nii.gz")
    assert len(np.unique(expected.dataobj)) > 2
    np.testing.assert_array_equal(made.dataobj, expected.dataobj)
    np.testing.assert_array_equal(made.affine, expected.affine)


def test_it_runs_elsewhere(packed, scan, expected, tmp_path, monkeypatch):
    """What the receiver has of ours is the package alone: no checkout, no bundle, no data preparation."""
    for name, value in CLOSED.items():
        monkeypatch.setenv(name, value)
    package = tmp_path / "installed"
    shutil.copytree(ROOT / "kvseg_monai", package / "kvseg_monai")
    (tmp_path / "empty").mkdir()
    received = run_here([sys.executable, "-m", "monai.bundle", *download(packed)], tmp_path / "empty")
    assert received.returncode == 0, received.stderr[-3000:]
    run_elsewhere(sys.executable, inference(scan), tmp_path / "empty", PYTHONPATH=str(package))
    assert_same_label_map(tmp_path / "empty", expected)


@pytest.mark.slow
def test_it_runs_in_a_new_virtual_environment(packed, scan, expected, tmp_path):
    source = tmp_path / "source"
    for package in ("kvseg_monai", "data_prep"):
        shutil.copytree(ROOT / package, source / package)
    for file in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copy(ROOT / file, source)
    python = tmp_path / "venv" / "bin" / "python"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for line in (
        [sys.executable, "-m", "venv", str(tmp_path / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", "-r", str(source / "requirements.txt")],
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(source)],
    ):
        result = subprocess.run(line, env=bare, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
    (tmp_path / "empty").mkdir()
    for arguments in (download(packed), inference(scan)):
        run_elsewhere(python, arguments, tmp_path / "empty")
    assert_same_label_map(tmp_path / "empty", expected)


def test_what_is_in_the_zip(packed, weights, tmp_path):
    found = {str(path.relative_to(BUNDLE)) for path in BUNDLE.rglob("*") if path.is_file()}
    assert {path for path in found if not path.startswith(("models/", "eval/"))} == FILES  # nothing new is forgotten
    with zipfile.ZipFile(packed) as content:
        assert content.testzip() is None
        names = content.namelist()
        assert {entry.date_time for entry in content.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names == sorted(f"{NAME}/{path}" for path in FILES | WEIGHTS)
    folder = unpack(packed, tmp_path)
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    trained = torch.load(weights, weights_only=True)
    assert list(state) == list(trained)
    assert all(torch.equal(state[name], trained[name]) for name in trained)
    assert str(Path.home()) not in "".join((folder / path).read_text() for path in FILES)


def test_checksums_fit(packed, tmp_path):
    models = unpack(packed, tmp_path) / "models"
    for folder, name in ((packed.parent, f"{packed.name}.sha256"), (models, "model.pt.sha256")):
        digest, file = (folder / name).read_text().removesuffix("\n").split("  ")
        assert digest == hashlib.sha256((folder / file).read_bytes()).hexdigest()
    assert digest in (models.parent / "docs" / "README.md").read_text()


def test_overrides_are_defaults_wherever_their_key_is(packed, tmp_path):
    configs = unpack(packed, tmp_path) / "configs"
    for name in ("train", "evaluate", "inference"):
        original, made = (json.loads((path / f"{name}.json").read_text()) for path in (BUNDLE / "configs", configs))
        original["network_def"]["size"] = "tiny"
        # These weights say nothing of their training, as those of earlier versions.
        old = {"slice_axis": "axial", "normalization": "percentiles"}
        assert made == {**original, "image_size": [64, 64], "slices_at_once": 4, **old}
    for name in ("multi_gpu_train.json", "logging.conf"):
        assert (configs / name).read_bytes() == (BUNDLE / "configs" / name).read_bytes()


def pack(target: Path, weights: Path, *options: str, bundle: str | Path = BUNDLE, tiny: tuple[str, ...] = TINY) -> Path:
    main([str(bundle), "--weights", str(weights), "--target", str(target), *tiny, *options])
    return target / f"{Path(bundle).name}_v{kvseg_monai.__version__}.zip"


def verify(folder: Path, schema: Path) -> None:
    configs = {name: str(folder / "configs" / f"{name}.json") for name in ("metadata", "inference")}
    monai.bundle.verify_metadata(
        meta_file=configs["metadata"], filepath=str(schema), hash_val=SCHEMA_HASH, hash_type="md5"
    )
    monai.bundle.verify_net_in_out(
        net_id="network_def", meta_file=configs["metadata"], config_file=configs["inference"], device="cpu"
    )


def test_monai_verifies_what_was_packed(packed, schema, tmp_path):
    folder = unpack(packed, tmp_path)
    verify(folder, schema)
    network = monai.bundle.load(NAME, bundle_dir=tmp_path, workflow_type="inference", device="cpu")
    trained = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_bundle_can_be_packed(bundle, schema, tmp_path):
    network = json.loads(Path(config(bundle, "inference")).read_text())["network_def"]
    net = network["_target_"].removeprefix("kvseg_monai.")
    trained = save_weights(tmp_path / "w.pt", net=net, attention=network["attention"])
    archive = pack(tmp_path, trained, bundle=ROOT / "bundles" / bundle)
    verify(unpack(archive, tmp_path), schema)


def test_channels_follow_slices_and_classes(schema, tmp_path):
    (tmp_path / "data").mkdir()
    datalist = {"labels": {"0": "background", "1": "liver"}, "training": [], "notice": "Made of a phantom."}
    (tmp_path / "data" / "datalist.json").write_text(json.dumps(datalist))
    trained = save_weights(tmp_path / "w.pt", 2, in_channels=3, patch_size=8)
    options = ("--slice_offsets=[-1,0,1]", "--network_def#out_channels", "2", "--network-def#patch-size", "8")
    folder = unpack(pack(tmp_path, trained, *options, "--dataset_dir", str(tmp_path / "data")), tmp_path)
    verify(folder, schema)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert (image["num_channels"], len(image["channel_def"]), image["spatial_shape"]) == (3, 3, [64, 64])
    assert (pred["num_channels"], pred["spatial_shape"]) == (2, [64, 64])
    assert pred["channel_def"] == {"0": "background", "1": "liver"}
    assert metadata["task"] == "Segmentation of liver in MRI"
    assert metadata["label_classes"] == "one label map: 0 background, then liver"
    card = (folder / "docs" / "README.md").read_text()
    assert all("Made of a phantom." in text for text in (card, metadata["description"]))
    assert "0 background, 1 liver |" in card
    (tmp_path / "data" / "datalist.json").write_text('{"training": []}')  # names no class
    evaluate = monai.bundle.ConfigParser(json.loads((folder / "configs" / "evaluate.json").read_text()))
    evaluate["dataset_dir"] = str(tmp_path / "data")
    assert evaluate.get_parsed_content("class_names") == ["liver"]


def test_the_same_input_gives_the_same_bytes(packed, weights, tmp_path):
    again = pack(tmp_path, weights)
    assert again.read_bytes() == packed.read_bytes()
    last = {"network": torch.load(weights, weights_only=True), "optimizer": {"state": torch.ones(3)}, "epoch": 4}
    torch.save(last, tmp_path / "last.pt")
    assert pack(tmp_path / "of_last", tmp_path / "last.pt").read_bytes() == packed.read_bytes()


def test_a_zip_is_replaced_only_when_asked(weights, tmp_path):
    archive = pack(tmp_path, weights)
    before = archive.read_bytes()
    with pytest.raises(InputError, match=r"_v0\.2\.0\.zip exists; give --overwrite to replace it"):
        pack(tmp_path, weights, "--network_def#dropout", "0.1")
    assert archive.read_bytes() == before
    pack(tmp_path, weights, "--network_def#dropout", "0.1", "--overwrite")
    assert archive.read_bytes() != before
    assert names_in(tmp_path) == [archive.name, f"{archive.name}.sha256"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--network_def#size", "small"], "holds the weights of another network: .* of another shape"),
        (["--network_def#attention", "qkv"], "holds the weights of another network: .* missing"),
        (["--image_size", "[128,64]"], "1 of another shape .as encoder.embedding.position."),
        (["--network_def#out_channels", "3"], "holds the weights of another network"),
        (["--network_def#size", "huge"], r"cannot be built and run \(size is 'huge'; it must be one of tiny"),
        (["--network_def#depth", "3"], r"cannot be built and run \(SETR.* unexpected keyword argument 'depth'"),
        (["--image_size", "[65,64]"], "each side must be a multiple of 16"),
        (["--network_def#patch_size", "12"], "patch_size is 12; it must be a power of two"),
        (["--image_size", "@canvas"], "`@canvas` is not defined"),
        (["--imagesize", "[64,64]"], "--imagesize is in no configuration of the bundle"),
        (["--inferer#overlapp", "0.5"], "--inferer#overlapp is in no configuration of the bundle"),
        (["--ckpt_dir", "models"], "--ckpt_dir is a place on this machine"),
        (["--device", "/dev/gpu"], "configs/train.json would hold the path /dev/gpu of this machine"),
        (["--dataset_dir", "nowhere"], "nowhere/datalist.json is missing"),
    ],
)
def test_overrides_that_do_not_fit(options, sentence, weights, tmp_path):
    with pytest.raises(InputError, match=sentence):
        pack(tmp_path / "out", weights, *options)
    assert not (tmp_path / "out").exists()


def test_classes_that_do_not_fit_the_output(tmp_path):
    trained = save_weights(tmp_path / "w.pt", 2)
    with pytest.raises(InputError, match=r"puts out 2 channels, but there are 4 classes .*; give --dataset_dir"):
        pack(tmp_path, trained, "--network_def#out_channels", "2")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "w.pt are missing"), (b"", "cannot be read as weights"), (b"not weights", "cannot be read as weights")],
)
def test_weights_that_are_none(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        pack(tmp_path / "out", tmp_path / "w.pt")


@pytest.fixture
def own_bundle(tmp_path) -> Path:
    """A copy of a bundle after its use: with results, a second datalist, and a note."""
    folder = tmp_path / "own" / NAME
    shutil.copytree(BUNDLE, folder)
    for path in ("eval/metrics.json", "eval/events.out.tfevents.1", "configs/datalist.json", "docs/patients.txt"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("Jane Doe")
    return folder


def test_results_and_data_stay_here(own_bundle, packed, weights, tmp_path):
    assert pack(tmp_path / "out", weights, bundle=own_bundle).read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (
            "metadata.json",
            f'"kvseg_monai": "{kvseg_monai.__version__}"',
            '"kvseg_monai": "0.0.9"',
            f"requires kvseg_monai 0.0.9, but {kvseg_monai.__version__}",
        ),
        ("metadata.json", f'"version": "{kvseg_monai.__version__}",', '"version": ', "metadata.json is not valid JSON"),
        ("train.json", "{", "", "train.json is not valid JSON"),
        ("train.json", "$@bundle_root + '/data'", "/home/jane/scans", "would hold the path /home/jane/scans of this"),
        ("evaluate.json", "$@bundle_root + '/data'", "~/scans", "would hold the path ~/scans of this machine"),
        ("inference.json", "$@bundle_root + '/data'", "C:\\\\scans", "would hold the path C:.* of this machine"),
    ],
)
def test_a_bundle_that_cannot_be_shared(file, old, new, sentence, own_bundle, weights, tmp_path):
    path = own_bundle / "configs" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=sentence):
        pack(tmp_path / "out", weights, bundle=own_bundle)
    assert not (tmp_path / "out").exists()


def test_no_bundle(weights, tmp_path):
    with pytest.raises(InputError, match="there is no bundle nowhere; give its folder, or the name"):
        pack(tmp_path, weights, bundle="nowhere")
    with pytest.raises(InputError, match=r"is no whole bundle, it lacks configs/metadata\.json"):
        pack(tmp_path, weights, bundle=tmp_path)


def test_a_target_that_cannot_be(weights, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; give a folder"):
        pack(tmp_path / "file", weights)
    with pytest.raises(InputError, match="is not a folder but a file; give another output folder"):
        pack(tmp_path / "file" / "below", weights)


def test_a_mistake_is_one_sentence_and_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: main([str(BUNDLE), "--weights", "none.pt", "--target", str(tmp_path), *TINY]))
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the weights none.pt are missing")
    assert list(tmp_path.iterdir()) == []
