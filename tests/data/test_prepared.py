"""Volumes that the checks have prepared are not read again; those of the validation wait until it comes."""

import json
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow
from monai.transforms import Compose, RandGaussianNoised
from support import BUNDLES, config

from kvseg_monai.data import PreparedCases, VolumeDataset, VolumeReader
from kvseg_monai.errors import InputError
from kvseg_monai.handlers import valid_cases

SMALL = {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4, "num_workers": 0}
TRAINED_ON = [f"{kind}s/case{number}.nii.gz" for kind in ("image", "label") for number in range(4)]


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often each file is read."""
    counted: Counter = Counter()
    read = VolumeReader.get_data

    def count(reader, files):
        counted["/".join(Path(files[0]).parts[-2:])] += 1
        return read(reader, files)

    monkeypatch.setattr(VolumeReader, "get_data", count)
    return counted


def training(folder: Path, dataset: Path, **options):
    places = {"bundle_root": str(folder), "dataset_dir": str(dataset)}
    return create_workflow(config_file=config(BUNDLES[1], "train"), workflow_type="train", **places, **SMALL, **options)


def test_what_is_trained_on_is_read_once_and_the_rest_when_it_is_needed(reads, tmp_path, tiny_dataset):
    made = training(tmp_path, tiny_dataset, max_epochs=3, val_interval=2)
    trainer = made.parser.get_parsed_content("train#trainer")
    seen = {}
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda engine: seen.setdefault(engine.state.epoch, dict(reads)))
    made.run()
    assert set(seen[1].values()) == {1}
    assert len(seen[1]) == 2 * 6
    assert seen[2] == seen[1]
    validated = {f"{kind}s/case{number}.nii.gz": 2 for kind in ("image", "label") for number in (4, 5)}
    assert seen[3] == {**seen[1], **validated}
    assert dict(reads) == seen[3]


def test_other_cases_are_read_by_the_dataset(reads, tmp_path, tiny_dataset):
    """As MONAI Label gives them, without a datalist."""
    given = [{kind: str(tiny_dataset / f"{kind}s" / "case0.nii.gz") for kind in ("image", "label")}]
    made = training(tmp_path, tmp_path / "nowhere", **{"train#dataset#data": given * 2, "validate#dataset#data": given})
    dataset = made.parser.get_parsed_content("train#dataset")
    assert sum(reads.values()) == 4
    assert len(dataset) == 2
    assert {len(dataset[number]) for number in (0, 1)} == {1}
    assert sum(reads.values()) == 4
    dataset.set_data(given)
    assert (len(dataset), sum(reads.values())) == (1, 6)


@pytest.mark.parametrize(("rate", "reads_again"), [(1.0, 0), (0.5, 2), (0.0, 4)])
def test_a_share_is_kept(rate, reads_again, reads, tmp_path, tiny_dataset):
    made = training(tmp_path, tiny_dataset, cache_rate=rate)
    dataset = made.parser.get_parsed_content("train#dataset")
    before = sum(reads[name] for name in TRAINED_ON)
    drawn = [dataset[number] for number in range(4)]
    after = sum(reads[name] for name in TRAINED_ON)
    assert (before, after - before) == (8, 2 * reads_again)
    assert {len(slices) for slices in drawn} == {1}


def damage(dataset: Path, folder: Path, case: int) -> Path:
    """A copy of the data whose image of one case is NaN."""
    shutil.copytree(dataset, folder)
    path = folder / "images" / f"case{case}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), path)
    return folder


def test_after_a_refusal_nothing_is_prepared_any_more(tmp_path, tiny_dataset):
    data = damage(tiny_dataset, tmp_path / "data", 1)
    entries = json.loads((data / "datalist.json").read_text())["training"]
    cases = [{"image": str(data / entry["image"])} for entry in entries]
    parser = training(tmp_path, data).parser
    loading = [parser.get_parsed_content(f"loading#{number}") for number in (0, 1, 2)]
    for transform in loading[1:]:
        transform.keys = ("image",)
    prepared = []

    def prepare(case: dict) -> dict:
        prepared.append(Path(case["case"]).name)
        return case

    class Prepare(Compose):
        def __call__(self, case, **options):
            return prepare(super().__call__(case, **options))

    options = {"transforms": loading, "prepare": Prepare(loading), "workers": 1}
    with pytest.raises(InputError, match="1 of 4 cases refused"):
        valid_cases({"training": cases}, **options)
    assert prepared == ["case0.nii.gz"]
    prepared.clear()
    valid = valid_cases({"training": cases, "validation": cases[:1]}, **options, skip=True)
    assert prepared == ["case0.nii.gz", "case2.nii.gz", "case3.nii.gz"]
    assert [Path(each["case"]).name for each in valid["training"].prepared] == prepared
    assert valid["training"] == [cases[0], *cases[2:]]
    assert valid["validation"].prepared == [None]


def test_cases_that_are_left_out_take_nobody_elses_volume(reads, tmp_path, tiny_dataset):
    made = training(tmp_path, damage(tiny_dataset, tmp_path / "data", 1), skip_bad_cases=True)
    dataset = made.parser.get_parsed_content("train#dataset")
    names = [{Path(drawn["case"]).name for drawn in dataset[number]} for number in range(3)]
    assert names == [{f"case{number}.nii.gz"} for number in (0, 2, 3)]
    assert set(reads.values()) == {1}


def test_the_first_that_are_not_prepared_are_prepared_at_first_use():
    """One was to be kept, was refused, and another took its place."""
    cases = PreparedCases([{"image": 1}, {"image": 2}], [None, {"image": torch.tensor(20.0)}])
    dataset = VolumeDataset(cases, Compose([RandGaussianNoised("image", prob=0.0)]))
    assert [float(dataset[number]["image"]) for number in (1, 0)] == [20, 1]


@pytest.mark.parametrize("prepared", [True, False])
def test_the_cases_that_are_kept_are_moved(prepared):
    """Those that the checks have prepared, and those that the dataset prepares; again when it takes other cases."""
    moved = []

    def move(cases: list) -> None:
        moved.append(len(cases))
        cases[:] = [{"image": case["image"] + 100} for case in cases]

    data = [{"image": torch.tensor(1.0)}, {"image": torch.tensor(2.0)}]
    data = PreparedCases(data, data) if prepared else data
    dataset = VolumeDataset(data, Compose([RandGaussianNoised("image", prob=0.0)]), move=move)
    assert [float(dataset[number]["image"]) for number in (0, 1)] == [101, 102]
    few = VolumeDataset(data, Compose([RandGaussianNoised("image", prob=0.0)]), move=move, cache_rate=0.5)
    assert [float(few[number]["image"]) % 100 for number in (0, 1)] == [1, 2]
    dataset.set_data([{"image": torch.tensor(3.0)}])
    assert (moved, float(dataset[0]["image"])) == ([2, 1], 103)
