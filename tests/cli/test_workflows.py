"""``kvseg train``, ``evaluate`` and ``infer`` are MONAI's runner, by a line that is printed and does the same."""

import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support import ROOT, TINY, run_here

from kvseg_monai.bundle.find import EVALUATE, INFERENCE, TRAIN
from kvseg_monai.cli import plain
from kvseg_monai.cli.bundles import copy_bundle
from kvseg_monai.cli.main import run
from kvseg_monai.cli.workflows import runner_words
from kvseg_monai.errors import InputError
from kvseg_monai.utils.run_options import config_files, read_options

NAME = "setr_kv_segmentation"
SHIPPED = ROOT / "bundles" / NAME


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundle_of_the_package_leaves_its_results_here(here):
    words = runner_words(TRAIN, ["setr_kv", "--dataset-dir", "D", "--max-epochs=5", "--network-def#size", "tiny"])
    places = ["--output_dir", f"{NAME}/eval", "--ckpt_dir", f"{NAME}/models"]
    assert words == [
        *("run", "--config_file", f"{SHIPPED}/configs/train.json", "--bundle_root", str(SHIPPED), *places),
        *("--dataset_dir", "D", "--max_epochs=5", "--network_def#size", "tiny"),
    ]


@pytest.mark.parametrize("given", ["output_dir", "ckpt_dir"])
def test_places_that_are_given_stay(here, given):
    options = read_options(runner_words(INFERENCE, ["setr_kv", f"--{given}", "elsewhere"]))
    other = {"output_dir": f"{NAME}/eval", "ckpt_dir": f"{NAME}/models"}
    assert {name: options[name] for name in other} == {**other, given: "elsewhere"}


def test_a_root_that_is_given_is_where_results_go(here):
    options = read_options(runner_words(EVALUATE, ["setr_kv", "--bundle_root", "runs/a"]))
    assert (options["bundle_root"], "output_dir" in options) == ("runs/a", False)


def test_ones_own_bundle_keeps_its_results(here):
    copy_bundle("setr_kv", here / "bundles")
    words = runner_words(INFERENCE, ["setr_kv", "--dataset_dir", "D"])
    folder = f"bundles/{NAME}"
    named = ["--config_file", f"{folder}/configs/inference.json", "--bundle_root", folder]
    assert words == ["run", *named, "--dataset_dir", "D"]


def test_overlays_are_laid_over_in_their_order(here):
    (here / "my overlay.json").write_text('{"cache": 1}')
    words = runner_words(
        TRAIN, ["setr_kv", "--overlay", "multi_gpu_train", "--overlay", "my overlay.json", "--cache", "2"]
    )
    configs = SHIPPED / "configs"
    assert config_files(read_options(words)) == [
        configs / "train.json",
        configs / "multi_gpu_train.json",
        Path("my overlay.json"),
    ]
    line = plain.show("monai.bundle", words)
    assert read_options(shlex.split(line)[3:]) == read_options(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name the bundle first, as in: kvseg train setr_kv"),
        (["--dataset_dir", "D", "setr_kv"], "name the bundle first"),
        (["setr_kw"], r"there is no bundle setr_kw; .*did you mean setr_kv"),
        (["setr_kv", "--max-epoch", "2"], r"--max_epoch is no option of train\.json; did you mean --max_epochs\?"),
        (["setr_kv", "--train#trainr#max_epochs", "2"], r"did you mean --train#trainer#max_epochs\?"),
        (
            ["setr_kv", "--image_size", "[128,", "96]"],
            r"'96\]' belongs to no option; put a value that has spaces in quotes",
        ),
        (["setr_kv", "--seed=1", "DATA"], "'DATA' belongs to no option"),
        (["setr_kv", "--config_file", "a.json"], "lay another over it by --overlay"),
        (["setr_kv", "--overlay", "unett"], r"there is no configuration unett; .*did you mean unetr\?"),
    ],
)
def test_mistakes_are_reported_before_anything_starts(here, words, sentence):
    with pytest.raises(InputError, match=sentence):
        run(["train", *words])


def test_help_lists_the_options_of_the_bundle(capsys):
    with pytest.raises(SystemExit, match="0"):
        run(["train", "setr_kv", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: kvseg train BUNDLE [--overlay FILE]")
    assert "  --max_epochs 400\n" in text
    assert "  --image_size [256, 256]\n" in text


def kvseg(folder: Path, *words: str, here: bool = False) -> list[str]:
    """Run a command in a folder, in a process or here, and return the plain line that it printed first."""
    folder.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "kvseg_monai", *words]
    in_process = partial(subprocess.run, capture_output=True, text=True, check=False)
    result = run_here(line, folder) if here else in_process(line, cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return shlex.split(result.stdout.splitlines()[0])


def again(folder: Path, line: list[str]) -> None:
    """Run a plain line in a folder of its own, where its relative places are."""
    folder.mkdir(exist_ok=True)
    result = run_here(line, folder)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_printed_line_gives_the_same_weights_and_label_map(tmp_path, tiny_dataset):
    first, second = tmp_path / "first", tmp_path / "second"
    options = [*TINY, "--dataset-dir", str(tiny_dataset)]
    line = kvseg(first, "train", "setr_kv", *options, "--max-epochs", "1", "--slices-per-volume=2")
    assert line[1:4] == ["-m", "monai.bundle", "run"]
    again(second, line)
    weights = [torch.load(place / NAME / "models" / "model.pt", weights_only=True) for place in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    volume = tiny_dataset / "images" / "case6.nii.gz"
    again(second, kvseg(first, "infer", "setr_kv", *TINY, "--dataset_dir", str(volume), here=True))
    maps = [nib.load(place / NAME / "eval" / "case6.nii.gz") for place in (first, second)]
    assert np.array_equal(*(np.asarray(found.dataobj) for found in maps))
    assert np.array_equal(maps[0].affine, nib.load(volume).affine)
    record = json.loads((first / NAME / "models" / "training.json").read_text())
    assert (record["bundle"], record["overrides"]["slices_per_volume"]) == (NAME, 2)


def test_an_error_of_the_run_is_a_sentence_with_its_exit_code(tmp_path):
    line = [sys.executable, "-m", "kvseg_monai", "infer", "setr_kv", "--dataset_dir", "nowhere"]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'nowhere'} ")
