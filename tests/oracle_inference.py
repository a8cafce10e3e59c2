"""A bundle's own inference with a network that knows the answer, so that what comes out tests everything but it."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import BundleWorkflow, create_workflow
from oracles import IntensityOracle
from support import BUNDLES, ROOT, config

SEG_OVERLAY = str(ROOT / "bundles" / "examples" / "dicom_seg.json")


def oracle_inference(source: Path, target: Path, *overlays: str, **overrides: Any) -> BundleWorkflow:
    """The workflow, not yet run, from ``source`` to ``target``; a case that the input checks refuse is left out."""
    made = create_workflow(
        config_file=[config(BUNDLES[1], "inference"), *overlays],
        workflow_type="inference",
        bundle_root=str(target),
        dataset_dir=str(source),
        output_dir=str(target),
        handlers=["@bad_cases"],
        **{"image_size": [64, 64], "normalization": "percentiles", **overrides},
    )
    made.parser["network"] = IntensityOracle()
    made.parser.parse(reset=True)
    return made


def on_canonical_axes(image: Path | nib.Nifti1Image) -> nib.Nifti1Image:
    """The volume with its axes in the order and direction nearest to the patient's, by nibabel."""
    return nib.as_closest_canonical(nib.load(image) if isinstance(image, Path) else image)


def scan_of(label_map: np.ndarray) -> np.ndarray:
    """The image in which the oracle sees the label map: intensity is 400 times the class."""
    return label_map.astype(np.int16) * 400
