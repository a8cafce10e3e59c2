"""Where label maps go, and which are made."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from monai.data import MetaTensor
from monai.transforms import SaveImage
from support import config

from kvseg_monai.data.dataset import volumes
from kvseg_monai.data.outputs import (
    all_to_do,
    label_map_name,
    named_after_image,
    pending,
    with_own_names,
)
from kvseg_monai.data.writers import AtomicNibabelWriter
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import write_text


def test_label_maps_that_are_there_are_not_made_again(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    cases = [{"image": str(source / name)} for name in ("a.nii", "b.nii.gz")]
    write_text(out / "a.nii.gz", "")
    assert pending(cases, out) == cases[1:]
    for overwrite, left in (("false", 1), ("true", 2), (True, 2)):  # on MONAI's command line a switch is text
        assert len(pending(cases, out, overwrite=overwrite)) == left
    with pytest.raises(InputError, match="--overwrite is 'maybe'; it must be true or false"):
        pending(cases, out, overwrite="maybe")
    (out / "b.nii.gz").touch()
    with pytest.raises(InputError, match="all 2 volumes have a label map in"):
        pending(cases, out)
    with pytest.raises(InputError, match="is the folder of the input"):
        pending(cases, source)


def cases_of(folder, *names):
    return [{"image": str(folder / name)} for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("a.nii", "a.nii.gz"),
        ("sub/a.nii", "b.nii", "sub/a.NII.GZ"),
        ("A.nii.gz", "a.nii.gz"),
        ("x/a.nii", "X/a.nii"),
        ("caf\u00e9.nii", "cafe\u0301.nii"),  # one letter or two
        ("series004-1f2e3d4c5b", "series004-1f2e3d4c5b.nii.gz"),  # a DICOM volume, and its label map by hand
    ],
)
def test_two_volumes_never_share_a_label_map(tmp_path, names):
    cases = cases_of(tmp_path, *names)
    for check in (with_own_names, lambda data: pending(data, tmp_path / "out", suffix=".dcm")):
        with pytest.raises(
            InputError, match=r"would have one label map, .*; names that differ in their endings"
        ) as reported:
            check(cases)
        assert {names[0], names[-1]} <= {part.rpartition(f"{tmp_path}/")[2] for part in str(reported.value).split()}


def test_a_label_map_is_no_folder_of_another(tmp_path):
    with pytest.raises(InputError, match=r"a\.nii would have the name of the folder for that of .*a\.nii\.gz/b\.nii"):
        with_own_names(cases_of(tmp_path, "a.nii", "a.nii.gz/b.nii"))


def test_equal_names_in_folders_of_their_own_stay_distinct(tmp_path):
    cases = cases_of(tmp_path, "p1/a.nii", "p2/a.nii", "p2/a.b.nii")
    assert with_own_names(cases) == cases


@pytest.mark.parametrize(
    "name", ["a.nii", "a.NII.GZ", "a.b.nii.gz", "a.gz.nii", "a.nii.nii.gz", "sub/a.nii.gz", "series004-1f"]
)
def test_monai_gives_a_label_map_the_name_that_is_looked_for(tmp_path, name):
    source = str(tmp_path / "in" / name)
    save = SaveImage(
        tmp_path / "out",
        output_postfix="",
        separate_folder=False,
        data_root_dir=str(tmp_path / "in"),
        writer=AtomicNibabelWriter,
        output_name_formatter=named_after_image,
        print_log=False,
    )
    save(MetaTensor(torch.ones(1, 3, 3, 2), meta={"filename_or_obj": source, "affine": torch.eye(4)}))
    assert list((tmp_path / "out").rglob("*.nii*")) == [tmp_path / "out" / label_map_name(Path(name))]


def test_a_second_run_on_the_same_folder_leaves_its_label_maps_alone(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    cases = volumes(tmp_path)
    writer = AtomicNibabelWriter(output_dtype=np.uint8)
    writer.set_data_array(np.ones((1, 3, 3, 2)), channel_dim=0)
    writer.set_metadata({"affine": np.eye(4)})
    (tmp_path / "seg").mkdir()
    writer.write(tmp_path / "seg" / "a.nii.gz")
    assert volumes(tmp_path) == cases


def test_an_evaluation_keeps_equal_names_distinct(tmp_path, tiny_dataset):
    data, entries = tmp_path / "data", []
    for number in (5, 6):
        for kind in ("image", "label"):
            (data / kind / str(number)).mkdir(parents=True)
            (data / kind / str(number) / "scan.nii.gz").symlink_to(tiny_dataset / f"{kind}s" / f"case{number}.nii.gz")
        entries.append({kind: f"{kind}/{number}/scan.nii.gz" for kind in ("image", "label")})
    (data / "datalist.json").write_text(json.dumps({"testing": entries}))
    places = {"dataset_dir": data, "ckpt_dir": tmp_path, "output_dir": tmp_path / "out"}
    workflow = create_workflow(
        config_file=config("setr_kv_segmentation", "evaluate"),
        workflow_type="inference",
        image_size=[64, 64],
        **{"network_def#size": "tiny"},
        **{name: str(place) for name, place in places.items()},
    )
    torch.save(workflow.parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    workflow.run()
    scored = json.loads((tmp_path / "out" / "metrics.json").read_text())["cases"]
    assert [case["case"] for case in scored] == ["scan", "scan_2"]
    assert [case["patient"] for case in scored] == [entry["image"] for entry in entries]
    for case, number in zip(scored, (5, 6), strict=True):
        assert case["image"] == str(data / "image" / str(number) / "scan.nii.gz")
        assert case["prediction"] == str(tmp_path / "out" / "predictions" / str(number) / "scan.nii.gz")
        places = [nib.load(case[key]).affine for key in ("prediction", "image")]
        np.testing.assert_allclose(*places, atol=1e-4)


def test_a_label_map_that_a_person_corrected_is_never_made_again(tmp_path):
    cases = [{"image": str(tmp_path / "in" / name)} for name in ("a.nii", "b.nii")]
    write_text(tmp_path / "a.nii.gz", "ours")
    for content in ("corrected by hand", "by another program"):
        (tmp_path / "b.nii.gz").write_text(content)
        for prepare in (lambda: pending(cases, tmp_path, overwrite=True), lambda: all_to_do(cases, tmp_path)):
            with pytest.raises(InputError, match=r"b\.nii\.gz is there and was not written by kvseg_monai, or was"):
                prepare()
    (tmp_path / "b.nii.gz").unlink()
    assert pending(cases, tmp_path, overwrite=True) == all_to_do(cases, tmp_path) == cases


def test_a_scored_label_map_never_takes_the_place_of_a_reference(tmp_path):
    """Which may well be a file of ours, prepared, and lie elsewhere than the datalist."""
    case = {"image": str(tmp_path / "images" / "a.nii.gz"), "label": str(tmp_path / "labels" / "a.nii.gz")}
    write_text(case["label"], "ours")
    (tmp_path / "link").symlink_to(tmp_path / "labels")
    for folder in ("labels", "link"):
        with pytest.raises(InputError, match="is an input, which is never replaced; choose another --prediction_dir"):
            all_to_do([case], tmp_path / folder)
    assert all_to_do([case], tmp_path / "elsewhere") == [case]
