"""The bundles as a user runs them: `python -m monai.bundle run`, from another folder, with plain overrides.

That is the command line, in this process; in one of its own where the process is what is tried.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support import BUNDLES, ONE_PER_NET, ROOT, TINY, command, config, names_in, run, run_here, succeed


@pytest.fixture(scope="module", params=ONE_PER_NET)
def trained(request, tmp_path_factory, tiny_dataset):
    """A bundle after two epochs: its name and folder."""
    folder = tmp_path_factory.mktemp(request.param)
    log = succeed(request.param, "train", folder, tiny_dataset, "--max_epochs", "2", "--val_interval", "1")
    assert "2/2" in log  # the progress bar
    return request.param, folder


def test_training_leaves_weights_and_events(trained):
    _, folder = trained
    best, last = (torch.load(folder / "models" / name, weights_only=True) for name in ("model.pt", "last.ckpt"))
    assert last["epoch"] == 2
    assert set(best) == set(last["network"])
    assert names_in(folder / "models") == ["last.ckpt", "model.pt", "model.safetensors", "training.json"]
    assert {"train_loss", "val_mean_dice", "lr"} <= scalars(folder / "eval")
    record = json.loads((folder / "models" / "training.json").read_text())
    assert (record["epochs"], record["overrides"]["max_epochs"], record["settings"]["seed"]) == (2, 2, 0)
    assert str(folder) not in json.dumps(record)


def scalars(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags, images = set(), set()
    for path in folder.glob("events*"):
        events = EventAccumulator(str(path)).Reload()
        tags |= set(events.Tags()["scalars"])
        images |= set(events.Tags()["images"])
    assert images
    return tags


def test_evaluation_scores_on_the_original_grid(trained, tiny_dataset):
    bundle, folder = trained
    succeed(bundle, "evaluate", folder, tiny_dataset, "--output_dir", str(folder / "scores"))
    scores = json.loads((folder / "scores" / "metrics.json").read_text())
    assert set(scores["mean"]) == {"dice", "jaccard", "weighted_jaccard", "hd95_mm"}
    assert set(scores["classes"]) == {"large_bowel", "small_bowel", "stomach"}
    manifest = scores["manifest"]
    assert manifest["bundle"] == bundle
    assert manifest["overrides"] == {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4}
    assert manifest["parameters"] == json.loads((folder / "models" / "training.json").read_text())["parameters"]
    assert str(folder) not in json.dumps(manifest)
    assert [(case["case"], case["patient"]) for case in scores["cases"]] == [("case6", "person6")]
    assert (folder / "scores" / "metrics.csv").read_text().startswith("case,patient,class")
    prediction = np.asarray(nib.load(folder / "scores" / "predictions" / "case6.nii.gz").dataobj)
    label = np.asarray(nib.load(tiny_dataset / "labels" / "case6.nii.gz").dataobj)
    both = 2 * ((prediction == 1) & (label == 1)).sum() / ((prediction == 1).sum() + (label == 1).sum())
    assert scores["classes"]["large_bowel"]["dice"] == pytest.approx(float(both), abs=1e-6)


@pytest.mark.parametrize("trained", ONE_PER_NET[:1], indirect=True)  # the same code for every network
def test_inference_keeps_name_grid_and_folders_and_goes_on_where_it_stopped(trained, tiny_dataset, tmp_path):
    bundle, folder = trained
    source = tmp_path / "scans"
    for number in (0, 1):
        (source / f"day{number}").mkdir(parents=True)
        shutil.copy(tiny_dataset / "images" / f"case{number}.nii.gz", source / f"day{number}" / "scan.nii.gz")
    out = ("--output_dir", str(tmp_path / "maps"))
    succeed(bundle, "inference", folder, source, *out)
    for number in (0, 1):
        image = nib.load(source / f"day{number}" / "scan.nii.gz")
        made = nib.load(tmp_path / "maps" / f"day{number}" / "scan.nii.gz")
        assert made.shape == image.shape
        assert made.get_data_dtype() == np.uint8
        np.testing.assert_allclose(made.affine, image.affine, atol=1e-5)

    first, second = ((tmp_path / "maps" / f"day{number}" / "scan.nii.gz") for number in (0, 1))
    second.unlink()
    before = first.stat().st_mtime_ns
    log = succeed(bundle, "inference", folder, source, *out)
    assert "1 of 2 volumes have a label map" in log
    assert second.is_file()
    assert first.stat().st_mtime_ns == before


def sentence(result: subprocess.CompletedProcess) -> str:
    """The one line that a refused run ends with."""
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_without_weights_nothing_is_predicted(name, tmp_path, tiny_dataset):
    reported = sentence(run(BUNDLES[1], name, tmp_path, tiny_dataset))
    assert reported.startswith(f"error: the weights {tmp_path}/models/model.pt are missing, and nothing is predicted")
    assert not list(tmp_path.rglob("*.nii.gz"))
    assert not list(tmp_path.rglob("metrics.*"))


def test_weights_of_another_attention_are_refused(trained, tiny_dataset, tmp_path):
    bundle, folder = trained
    other = "qkv" if "qkv" not in bundle else "kv"
    out = ("--output_dir", str(tmp_path), "--network_def#attention", other)
    reported = sentence(run(bundle, "inference", folder, tiny_dataset, *out))
    assert "holds the weights of another network" in reported
    assert not list(tmp_path.rglob("*.nii.gz"))


@pytest.mark.parametrize("trained", ONE_PER_NET[:1], indirect=True)  # the same code for every network
def test_a_label_map_never_takes_the_place_of_its_input(trained, tiny_dataset):
    """Neither where a folder is searched, nor where one file of it is given."""
    bundle, folder = trained
    images = tiny_dataset / "images"
    for source, reason in ((tiny_dataset, "lies in --dataset_dir"), (images / "case6.nii.gz", "is the folder of the")):
        assert reason in sentence(run(bundle, "inference", folder, source, "--output_dir", str(images)))


def test_a_missing_datalist_is_reported_here_and_in_a_process(tmp_path):
    line = command(BUNDLES[1], "train", "--bundle_root", str(tmp_path), "--dataset_dir", str(tmp_path / "nowhere"))
    reported = sentence(subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False))
    assert "datalist.json is missing" in reported
    assert sentence(run_here(line, tmp_path)) == reported


def test_labels_outside_the_declared_set_are_reported(tmp_path, tiny_dataset):
    result = run(BUNDLES[1], "train", tmp_path, tiny_dataset, "--network_def#out_channels", "3")
    assert sentence(result).startswith("correct them, or leave them out")
    assert "error: 6 of 6 cases refused:" in result.stderr
    assert "labels/case0.nii.gz holds the label values [3]; the network knows 0 to 2" in result.stderr


def test_a_killed_training_goes_on_and_an_earlier_model_is_kept(tmp_path, tiny_dataset):
    bundle, models = BUNDLES[1], tmp_path / "models"
    line = command(bundle, "train", "--bundle_root", str(tmp_path), "--dataset_dir", str(tiny_dataset))
    with subprocess.Popen([*line, "--max_epochs", "1000"], stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not (models / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
    done = torch.load(models / "last.ckpt", weights_only=True)["epoch"]
    assert 1 <= done < 1000

    resumed = ("--resume", "true", "--max_epochs")
    log = succeed(bundle, "train", tmp_path, tiny_dataset, *resumed, str(done + 1))
    assert f"training goes on after epoch {done}" in log
    assert torch.load(models / "last.ckpt", weights_only=True)["epoch"] == done + 1
    assert "raise --max_epochs" in sentence(run(bundle, "train", tmp_path, tiny_dataset, *resumed, "1"))

    earlier = (models / "model.pt").read_bytes()
    log = succeed(bundle, "train", tmp_path, tiny_dataset, "--max_epochs", "1")
    assert "the model.pt that is there scores" in log
    assert earlier in [path.read_bytes() for path in models.glob("model*.pt")]  # in its place, or under its date
    assert len(list(models.glob("model*.pt"))) == 2


def test_two_processes_train_together(tmp_path, tiny_dataset):
    bundle = BUNDLES[1]
    configs = f"['{config(bundle, 'train')}','{config(bundle, 'multi_gpu_train')}']"
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    line += ["run", "--config_file", configs, "--bundle_root", str(tmp_path), "--dataset_dir", str(tiny_dataset), *TINY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*line, "--max_epochs", "1"], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in weights)
