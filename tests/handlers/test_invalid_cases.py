"""Invalid cases among valid ones: reported before a training, left out of batch work, which says so at its end."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import write_series
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged
from oracle_inference import oracle_inference
from support import BUNDLES, config, make_volume, names_in, run

from kvseg_monai.data.readers import VolumeReader
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.handlers.invalid_cases import GuardedDataset, SkipBadCases, require_cases, valid_cases
from kvseg_monai.transforms.checks import CheckVolumed
from kvseg_monai.utils.old_names import METHODS

BUNDLE = BUNDLES[1]
LOADING = [LoadImaged("image", reader=VolumeReader), CheckVolumed("image")]


@pytest.fixture
def dataset(tiny_dataset, tmp_path) -> Path:
    """The tiny dataset with two invalid cases: NaN in a training image, and a test image that is cut off."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_dataset, folder)
    damaged = nib.load(folder / "images" / "case1.nii.gz")
    nib.save(
        nib.Nifti1Image(np.full(damaged.shape, np.nan, np.float32), damaged.affine), folder / "images" / "case1.nii.gz"
    )
    cut_off = folder / "images" / "case5.nii.gz"
    cut_off.write_bytes(cut_off.read_bytes()[:-40])
    datalist = json.loads((folder / "datalist.json").read_text())
    datalist["test"] = [datalist["training"].pop(), datalist["validation"].pop(), *datalist["test"]]  # cases 3, 5, 6
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture
def weights(tmp_path) -> Path:
    """The folder of a bundle with random weights."""
    parser = ConfigParser()
    parser.read_config(config(BUNDLE, "inference"))
    parser.update({"network_def#size": "tiny", "image_size": [64, 64]})
    (tmp_path / "models").mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "models" / "model.pt")
    return tmp_path


@pytest.mark.parametrize(("training", "validation"), [(0, 0), (1, 0), (4, 0), (0, 1)])
def test_a_training_needs_a_case_to_train_and_one_to_validate_on(training, validation):
    case = {"image": "a.nii.gz", "label": "b.nii.gz"}
    with pytest.raises(InputError, match=f"{training} labelled cases to train on and {validation} to validate on"):
        require_cases([case] * training, [case] * validation)


def test_a_batch_finishes_the_valid_cases_and_reports_the_invalid_ones_at_the_end(dataset, weights):
    out = weights / "eval"
    for name, folder in (("inference", out), ("evaluate", out / "predictions")):
        result = run(BUNDLE, name, weights, dataset)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        *_, count, sentence, rest = result.stderr.strip().splitlines()
        assert count == "error: 1 of 3 cases refused:"
        assert sentence.startswith(f"  {dataset}/images/case5.nii.gz is no readable NIfTI file (")
        assert rest == "2 case(s) are finished"
        assert [path.name for path in sorted(folder.glob("*.nii.gz"))] == ["case3.nii.gz", "case6.nii.gz"]
        assert not list(folder.glob(".partial*"))
    scores = json.loads((out / "metrics.json").read_text())
    assert [case["case"] for case in scores["cases"]] == ["case3", "case6"]
    assert scores["refused"] == [sentence.strip()]


@pytest.mark.parametrize("name", ["report", *METHODS])
def test_refused_cases_are_reported_under_the_old_name_too(name):
    handler = SkipBadCases()
    getattr(handler, name)()
    handler.cases, handler.refused = 3, ["a.nii.gz is empty"]
    with pytest.raises(InputError, match=r"1 of 3 cases refused:\n  a.nii.gz is empty\n2 case\(s\) are finished"):
        getattr(handler, name)()
    with pytest.raises(AttributeError, match="SkipBadCases has no attribute 'other'"):
        _ = handler.other


def test_a_training_does_not_start_before_all_invalid_cases_are_reported(dataset, tmp_path):
    shutil.copy(dataset / "labels" / "case0.nii.gz", dataset / "images" / "case4.nii.gz")  # of another grid
    result = run(BUNDLE, "train", tmp_path, dataset)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    *_, count, training, validation, remedy = result.stderr.strip().splitlines()
    assert count == "error: 2 of 4 cases refused:"
    assert "images/case1.nii.gz has 25200 voxel(s) that are NaN" in training
    assert "labels/case4.nii.gz lies up to" in validation
    assert remedy == "correct them, or leave them out by --skip_bad_cases true"
    assert not (tmp_path / "models").exists()


def test_invalid_cases_are_left_out_of_a_training_when_asked(dataset, tmp_path, caplog):
    cases = {
        name: [{"image": str(dataset / "images" / f"case{number}.nii.gz")} for number in numbers]
        for name, numbers in (("training", (0, 1, 2)), ("validation", (4,)))
    }
    with pytest.raises(InputError, match=r"(?s)^1 of 4 cases refused:.*case1.nii.gz has .*--skip_bad_cases true$"):
        valid_cases(cases, transforms=LOADING)
    valid = valid_cases(cases, transforms=LOADING, skip="true")
    assert valid == {"training": [cases["training"][0], cases["training"][2]], "validation": cases["validation"]}
    assert next(r.message for r in caplog.records if r.name == "kvseg_monai.handlers.invalid_cases").startswith(
        "left out: "
    )
    with pytest.raises(InputError, match=r"no training case is left; correct them$"):
        valid_cases({**cases, "training": cases["training"][1:2]}, transforms=LOADING, skip=True)
    with pytest.raises(InputError, match="--skip_bad_cases is 'maybe'; it must be true or false"):
        valid_cases(cases, transforms=LOADING, skip="maybe")


def test_where_all_are_bad_the_evaluation_says_so(dataset, weights):
    """No metrics.json of nothing."""
    shutil.copy(dataset / "images" / "case5.nii.gz", dataset / "images" / "case3.nii.gz")
    shutil.copy(dataset / "images" / "case5.nii.gz", dataset / "images" / "case6.nii.gz")
    result = run(BUNDLE, "evaluate", weights, dataset)
    assert result.returncode == 2
    assert result.stderr.count("WARNING refused: ") == 3
    reported = result.stderr.strip().splitlines()[-1]
    assert reported.startswith("error: no case was scored: the list is empty, or all were refused")
    assert not (weights / "eval" / "metrics.json").exists()


def test_faults_of_a_dicom_folder_are_invalid_cases(tmp_path):
    """A series with a missing slice, and a damaged file; a localizer is left out by rule and no fault."""
    voxels, affine = make_volume(0)[0], np.diag([-1.5, -1.5, 3, 1])
    write_series(tmp_path / "in" / "good", voxels, affine)
    localizer = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(tmp_path / "in" / "scout", voxels, affine, SeriesInstanceUID="1.2.4", ImageType=localizer)
    write_series(tmp_path / "in" / "gap", voxels, affine, SeriesInstanceUID="1.2.3")[3].unlink()
    damaged = pydicom.dcmread(tmp_path / "in" / "good" / "IM0000")
    damaged.PixelSpacing = [0, 0]
    damaged.save_as(tmp_path / "in" / "damaged")
    with pytest.raises(RuntimeError, match="bad_cases") as error:
        oracle_inference(tmp_path / "in", tmp_path / "eval").run()
    reported = str(find_input_error(error.value))
    assert re.match(r"(?s)2 of 3 cases refused:.*in/damaged .*PixelSpacing.*gap/IM0000: .*slices are missing", reported)
    assert len(names_in(tmp_path / "eval")) == 1


def test_a_defect_of_ours_is_not_taken_for_a_bad_case(dataset):
    def broken(data: dict) -> dict:
        raise KeyError("ours")

    cases = [{"image": "a.nii.gz"}]
    with pytest.raises(RuntimeError, match="applying transform"):
        GuardedDataset(cases, broken)[0]
    with pytest.raises(RuntimeError, match="applying transform"):
        valid_cases({"training": cases}, transforms=[broken])
