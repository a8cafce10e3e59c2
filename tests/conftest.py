"""What the tests share: where real data are, and a tiny dataset of MR-like volumes."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import ROOT, make_volume

pytest.register_assert_rewrite("net_contract")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MR data, from $KVSEG_DATA or beside the repository; the test skips without it."""
    folder = Path(os.environ.get("KVSEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real MR data at {folder}; set KVSEG_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def schema() -> Path:
    """MONAI's metadata schema, a file that is not ours to ship; the test skips without it."""
    default = ROOT.parent / "shared" / "monai" / "meta_schema_20240725.json"
    path = Path(os.environ.get("KVSEG_MONAI_SCHEMA", default))
    if not path.is_file():
        pytest.skip(f"no MONAI metadata schema at {path}; set KVSEG_MONAI_SCHEMA to the file")
    return path


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven volumes of seven patients with oblique, flipped and anisotropic affines, and their datalist."""
    folder = tmp_path_factory.mktemp("tiny_dataset")
    sections = {"training": range(4), "validation": range(4, 6), "test": range(6, 7)}
    datalist = {"labels": {"0": "background", "1": "large_bowel", "2": "small_bowel", "3": "stomach"}}
    turn = np.array([[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1]])
    for section, numbers in sections.items():
        datalist[section] = []
        for number in numbers:
            affine = np.eye(4)
            affine[:3, :3] = turn @ np.diag([-1.5, -1.5, 3.0 if number % 2 else -3.0])
            affine[:3, 3] = (50, 40, number)
            entry = {"patient": f"person{number}"}
            for kind, array in zip(("image", "label"), make_volume(number), strict=True):
                entry[kind] = f"{kind}s/case{number}.nii.gz"
                (folder / f"{kind}s").mkdir(exist_ok=True)
                nib.save(nib.Nifti1Image(array, affine), folder / entry[kind])
            datalist[section].append(entry)
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder
