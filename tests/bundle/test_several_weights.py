"""Inference and evaluation of a bundle with several weights, and probabilities beside the label maps."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from support import config, names_in

from kvseg_monai import SETR
from kvseg_monai.errors import find_input_error
from kvseg_monai.utils.weights import save_whole

BUNDLE = "setr_kv_segmentation"
SETTINGS = {"image_size": [64, 64], "flip": [0], "normalization": "zscore", "network_def": {"size": "tiny"}}


@pytest.fixture
def weights(tmp_path) -> list[str]:
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"w{seed}" / "model.pt")
        paths[-1].parent.mkdir()
        save_whole(SETR(1, 4, 64, size="tiny").state_dict(), paths[-1], settings=SETTINGS)
    return [str(path) for path in paths]


def run(workflow: str, folder: Path, dataset: Path, ckpt_path, **options) -> Path:
    out = folder / f"out_{workflow}"
    places = {"bundle_root": str(folder), "dataset_dir": str(dataset), "output_dir": str(out), "ckpt_path": ckpt_path}
    created = create_workflow(
        config_file=config(BUNDLE, workflow), workflow_type="inference", slices_at_once=4, **places, **options
    )
    created.run()
    return out


def probabilities(folder: Path, case: str) -> np.ndarray:
    return nib.load(folder / f"{case}_probabilities.nii.gz").get_fdata()


def test_the_mean_is_saved_and_labels_are_its_largest(tmp_path, tiny_dataset, weights):
    source = tiny_dataset / "images"
    (tmp_path / "both").mkdir()
    both = run("inference", tmp_path / "both", source, weights, save_probabilities=True)
    single = []
    for number, path in enumerate(weights):
        (tmp_path / str(number)).mkdir()
        single.append(run("inference", tmp_path / str(number), source, path, save_probabilities="true"))
    for case in ("case0", "case5"):
        mean = np.mean([probabilities(folder, case) for folder in single], axis=0)
        np.testing.assert_allclose(probabilities(both, case), mean, atol=2e-3)  # interpolated before and after the mean
        label_map = nib.load(both / f"{case}.nii.gz")
        stored = nib.load(both / f"{case}_probabilities.nii.gz")
        assert stored.shape == (*label_map.shape, 4)
        assert stored.get_data_dtype() == np.int16
        np.testing.assert_array_equal(stored.affine, label_map.affine)
        differ = stored.get_fdata().argmax(-1) != np.asarray(label_map.dataobj)
        assert differ.mean() < 1e-3  # ties of what is stored


def test_a_volume_is_done_when_both_files_are_there(tmp_path, tiny_dataset, weights):
    source = tiny_dataset / "images"
    out = run("inference", tmp_path, source, weights[0])
    assert not [name for name in names_in(out) if "probabilities" in name]
    run("inference", tmp_path, source, weights[0], save_probabilities=True)
    (out / "case1_probabilities.nii.gz").unlink()
    kept = (out / "case2_probabilities.nii.gz").stat().st_mtime_ns
    run("inference", tmp_path, source, weights[0], save_probabilities=True)
    assert (out / "case2_probabilities.nii.gz").stat().st_mtime_ns == kept
    with pytest.raises(RuntimeError) as reported:
        run("inference", tmp_path, source, weights[0], save_probabilities=True)
    assert "have a label map in" in str(find_input_error(reported.value))
    (out / "case3_probabilities.nii.gz").write_bytes(b"of the user")
    with pytest.raises(RuntimeError) as reported:
        run("inference", tmp_path, source, weights[0], save_probabilities=True, overwrite=True)
    assert "case3_probabilities.nii.gz" in str(find_input_error(reported.value))
    assert (out / "case3_probabilities.nii.gz").read_bytes() == b"of the user"


def test_an_evaluation_records_how_probabilities_were_put_together(tmp_path, tiny_dataset, weights):
    out = run("evaluate", tmp_path, tiny_dataset, weights, tta=True, temperature=1.5, keep_largest=[1])
    manifest = json.loads((out / "metrics.json").read_text())["manifest"]
    assert manifest["ensemble"] == {"networks": 2, "flips": 2, "temperature": 1.5}
    assert manifest["settings"]["keep_largest"] == [1]
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"keep_largest": [9]}, "--keep_largest names label 9"), ({"tta": True, "flip": []}, "trained without flips")],
)
def test_a_wrong_option_ends_the_run_and_is_no_fault_of_the_cases(options, sentence, tmp_path, tiny_dataset, weights):
    with pytest.raises(RuntimeError) as reported:
        run("inference", tmp_path, tiny_dataset / "images", weights, **options)
    assert sentence in str(find_input_error(reported.value))
    assert "refused" not in str(find_input_error(reported.value))
