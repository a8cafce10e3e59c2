"""A seed decides what a training shows, augmentation included: again, after an interruption, in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import create_workflow
from support import BUNDLES, ROOT, TINY, config

from kvseg_monai.errors import InputError

SMALL = {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4, "num_workers": 0}


def train(folder: Path, dataset: Path, *, breaks: int = 0, **options) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Train two epochs of two steps; return what the network saw in each step. It may break before a step."""
    places = {"bundle_root": str(folder), "dataset_dir": str(dataset)}
    options = {"max_epochs": 2, "volumes_per_batch": 2, "slices_per_volume": 4, "val_interval": 1, **options}
    made = create_workflow(config_file=config(BUNDLES[1], "train"), workflow_type="train", **places, **SMALL, **options)
    trainer = made.parser.get_parsed_content("train#trainer")
    seen = {}

    @trainer.on(Events.ITERATION_STARTED)
    def interrupt(engine: Engine) -> None:
        if engine.state.iteration == breaks:
            raise InputError("interrupted")

    @trainer.on(Events.ITERATION_COMPLETED)
    def keep(engine: Engine) -> None:
        seen[engine.state.iteration] = engine.state.output["image"], engine.state.output["label"]

    if breaks:
        with pytest.raises(RuntimeError):
            made.run()
    else:
        made.run()
    return seen


def same(one, other) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_each_bit_comes_again_also_after_an_interruption(tmp_path, tiny_dataset):
    straight = train(tmp_path / "straight", tiny_dataset)
    again = train(tmp_path / "again", tiny_dataset, **{"network_def#dropout": 0.3})
    other = train(tmp_path / "other", tiny_dataset, seed=1)
    broken = train(tmp_path / "broken", tiny_dataset, breaks=4)
    resumed = train(tmp_path / "broken", tiny_dataset, resume=True)
    assert list(straight) == list(again) == [1, 2, 3, 4]
    assert (list(broken), list(resumed)) == ([1, 2, 3], [3, 4])
    for step, batch in straight.items():
        assert batch[0].shape == batch[1].shape == (8, 1, 64, 64)
        assert same(batch, again[step])
        assert not same(batch, other[step])
    assert all(same(straight[step], batch) for step, batch in {**broken, **resumed}.items())
    assert not any(same(straight[1], straight[step]) for step in (2, 3, 4))
    weights = [
        torch.load(tmp_path / name / "models" / "last.ckpt", weights_only=True)["network"]
        for name in ("straight", "broken")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_augmentation_is_set_by_its_ids(tmp_path, tiny_dataset):
    still = {f"train#batch_transforms#{number}#prob": 0.0 for number in range(4)}
    bright = {"train#batch_transforms#3#prob": 1.0, "train#batch_transforms#3#factors": [1.0, 1.0]}
    plain = train(tmp_path / "plain", tiny_dataset, **still)
    doubled = train(tmp_path / "doubled", tiny_dataset, **{**still, **bright})
    assert torch.equal(doubled[1][0], 2 * plain[1][0])
    assert torch.equal(doubled[1][1], plain[1][1])


def test_two_processes_come_to_the_same_again(tmp_path, tiny_dataset):
    configs = f"['{config(BUNDLES[1], 'train')}','{config(BUNDLES[1], 'multi_gpu_train')}']"
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    line += ["run", "--config_file", configs, "--dataset_dir", str(tiny_dataset), *TINY, "--max_epochs", "1"]
    saved = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [*line, "--bundle_root", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        saved.append(torch.load(tmp_path / name / "models" / "last.ckpt", weights_only=True)["network"])
        assert json.loads((tmp_path / name / "models" / "training.json").read_text())["epochs"] == 1
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
