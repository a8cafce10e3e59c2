"""Training, study, evaluation and inference on a GPU; skipped without one. ``benchmarks/gpu.sh`` runs these."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow
from support import ONE_PER_NET, config, run, succeed

from kvseg_monai.errors import find_input_error
from kvseg_monai.transforms.invert import Axis, label_map

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]

SMALL = {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4}
ON = {place: ("--device", place, "--max_epochs", "2", "--learning_rate", "0.01") for place in ("cuda", "cpu")}


def training(folder, dataset, bundle: str = ONE_PER_NET[0], **options):
    places = {"bundle_root": str(folder), "dataset_dir": str(dataset), "device": "cuda"}
    return create_workflow(config_file=config(bundle, "train"), workflow_type="train", **places, **SMALL, **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bundle", ONE_PER_NET)
def test_no_step_waits_for_the_gpu(bundle, precision, workers, tmp_path, tiny_dataset):
    """With the volumes on the GPU, and on the host; the first steps allocate, and cuDNN times its convolutions."""
    made = training(
        tmp_path, tiny_dataset, bundle, precision=precision, num_workers=workers, max_epochs=1, steps_per_epoch=9
    )
    trainer = made.parser.get_parsed_content("train#trainer")
    cases = made.parser.get_parsed_content("train#dataset")._cache
    assert {case["image"].device.type for case in cases} == {"cpu" if workers else "cuda"}
    watch = {Events.ITERATION_STARTED(once=4): "error", Events.ITERATION_COMPLETED(once=8): "default"}
    for event, mode in watch.items():
        trainer.add_event_handler(event, lambda mode=mode: torch.cuda.set_sync_debug_mode(mode))
    try:
        made.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (tmp_path / "models" / "model.pt").is_file()


@pytest.fixture(scope="module", params=ONE_PER_NET)
def trained(request, tmp_path_factory, tiny_dataset):
    """A bundle that was trained on the GPU and evaluated there."""
    folder = tmp_path_factory.mktemp("trained")
    log = succeed(request.param, "train", folder, tiny_dataset, *ON["cuda"])
    succeed(request.param, "evaluate", folder, tiny_dataset, "--device", "cuda")
    return request.param, folder, log


def test_a_bundle_trains_and_scores_on_a_gpu(trained):
    _, folder, log = trained
    facts = json.loads((folder / "models" / "training.json").read_text())
    assert facts["device"] == torch.cuda.get_device_name()
    assert torch.load(folder / "models" / "last.ckpt", weights_only=True, map_location="cpu")["epoch"] == 2
    assert "epoch 2/2" in log
    metrics = json.loads((folder / "eval" / "metrics.json").read_text())
    assert metrics["manifest"]["device"] == facts["device"]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_training_goes_on_here_and_on_the_cpu(device, trained, tmp_path, tiny_dataset):
    bundle, folder, _ = trained
    shutil.copytree(folder / "models", tmp_path / "models")
    options = ("--device", device, "--max_epochs", "3", "--resume", "true")
    assert "training goes on after epoch 2" in succeed(bundle, "train", tmp_path, tiny_dataset, *options)


def test_cpu_and_gpu_agree(trained, tmp_path, tiny_dataset):
    """Label maps of one and the same weights, by evaluation and by inference."""
    bundle, folder, _ = trained
    shutil.copytree(folder / "models", tmp_path / "models")
    succeed(bundle, "evaluate", tmp_path, tiny_dataset, "--device", "cpu")
    succeed(
        bundle,
        "inference",
        tmp_path / "inferred",
        tiny_dataset,
        "--device",
        "cuda",
        "--ckpt_dir",
        str(folder / "models"),
    )
    gpu, cpu, inferred = (
        np.asarray(nib.load(place).dataobj)
        for place in (
            folder / "eval" / "predictions" / "case6.nii.gz",
            tmp_path / "eval" / "predictions" / "case6.nii.gz",
            tmp_path / "inferred" / "eval" / "case6.nii.gz",
        )
    )
    assert (gpu != cpu).mean() < 0.01
    assert (gpu != inferred).mean() < 0.001


def test_a_nan_is_found_before_anything_is_saved(tmp_path, tiny_dataset):
    made = training(tmp_path, tiny_dataset, max_epochs=3, volumes_per_batch=2)
    trainer = made.parser.get_parsed_content("train#trainer")

    @trainer.on(Events.ITERATION_STARTED(once=3))  # the first step of the second epoch
    def spoil(engine) -> None:
        engine.state.batch["image"][1] = float("inf")

    with pytest.raises(RuntimeError) as reported:
        made.run()
    assert str(find_input_error(reported.value)).startswith("the loss became NaN in epoch 2, step 1 of 2, on ")
    assert torch.load(tmp_path / "models" / "last.ckpt", weights_only=True, map_location="cpu")["epoch"] == 1


@pytest.mark.parametrize("share", [0.25, 1e-9])
def test_volumes_that_do_not_fit_stay_on_the_host(share, tmp_path, tiny_dataset):
    made = training(tmp_path, tiny_dataset, max_epochs=1, gpu_share=share)
    cases = made.parser.get_parsed_content("train#dataset")._cache
    assert {case[key].device.type for case in cases for key in ("image", "label")} == {"cuda" if share > 0.1 else "cpu"}
    made.run()


@pytest.mark.parametrize("step", [1.0, 0.7])
def test_label_maps_are_those_of_the_cpu(step):
    scores = torch.randn(5, 40, 30, 9)
    places = [torch.arange(side, dtype=torch.float64) * size for side, size in ((50, step), (40, step), (9, 1.0))]
    axes = [Axis(source, place) for source, place in enumerate(places)]
    found, wanted = label_map(scores.cuda(), axes).cpu(), label_map(scores, axes)
    assert (found != wanted).float().mean() < 1e-3


def test_a_gpu_that_is_not_there(tmp_path, tiny_dataset):
    count = torch.cuda.device_count()
    ended = run(ONE_PER_NET[0], "train", tmp_path, tiny_dataset, "--device", f"cuda:{count}")
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert f"the last is cuda:{count - 1}" in ended.stderr


def test_a_study_makes_two_arms_at_once_on_a_gpu(tmp_path, tiny_dataset):
    pytest.importorskip("pandas")
    pytest.importorskip("pydantic")
    import yaml

    from kvseg_monai.study.__main__ import main

    split = {"training": ["person0", "person1", "person2"], "validation": ["person4"], "test": ["person5"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    plan = {
        **{"split": "split.json", "output_dir": "out", "dataset_dir": str(tiny_dataset), "seeds": [0]},
        "overrides": {"max_epochs": 2, "image_size": [64, 64], "slices_at_once": 8},
        "nets": {"setr": {"attention": ["qkv", "kv"], "overrides": {"network_def#size": "tiny"}}},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    assert main(["run", str(tmp_path / "study.yaml"), "--jobs", "2", "--device", "cuda"]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "arms").glob("*/arm.json")]
    assert [record["device"] for record in records] == [torch.cuda.get_device_name()] * 2
