"""An evaluation of four scans whose predictions are shifted labels, and an untrained network to go with it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from support import ROOT

import kvseg_monai
from kvseg_monai.metrics.case import score_case
from kvseg_monai.metrics.summary import summarise, write_metrics
from kvseg_monai.report.inspection import InspectionRequest

ORGANS = ["large_bowel", "stomach"]
SHAPE = (24, 20, 6)
AFFINE = np.diag([-1.5, -1.5, 3.0, 1.0])  # LPS+
SMALL = {"network_def#size": "tiny", "network_def#out_channels": 3, "image_size": [32, 32]}


def save(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def make_case(folder: Path, name: str, shift: int) -> dict:
    """One scan whose prediction is its label, moved by ``shift`` voxels along X."""
    label = np.zeros(SHAPE, np.uint8)
    label[4:10, 5:12, 2:4] = 1
    label[14:18, 6:12, 3:5] = 2
    prediction = np.roll(label, shift, axis=0)
    image = np.random.default_rng(0).random(SHAPE, np.float32) + label
    paths = {
        "image": save(image, folder / f"data/images/{name}.nii.gz"),
        "label": save(label, folder / f"data/labels/{name}.nii.gz"),
    }
    save(prediction, folder / name / f"{name}_seg.nii.gz")
    scores = score_case(prediction, label, class_names=ORGANS, spacing=(1.5, 1.5, 3.0))
    return {"case": name, "patient": name.split("_")[0], **scores, **paths}


def make_evaluation(folder: Path) -> Path:
    """Write ``metrics.json`` and the files that it names; the median case is ``patient2_day0``."""
    cases = [make_case(folder, f"patient{i}_day0", shift) for i, shift in enumerate((0, 1, 2, 3))]
    write_metrics(summarise(cases, ORGANS), folder)
    return folder


def make_request(folder: Path, net: str = "SETR", attention: str = "kv_pos", **request) -> InspectionRequest:
    """Write random weights, and return a request to inspect their network; further overrides as ``overrides``."""
    torch.manual_seed(0)
    overrides = {**SMALL, **request.pop("overrides", {})}
    channels = len(overrides.get("slice_offsets", [0]))
    network = getattr(kvseg_monai, net)(channels, 3, overrides["image_size"], attention=attention, size="tiny")
    weights = folder / f"{net}_{attention}.pt"
    torch.save(network.state_dict(), weights)
    bundle = ROOT / "bundles" / f"{net.lower()}_{attention}_segmentation"
    return InspectionRequest(str(bundle), str(weights), overrides=overrides, **request)
