"""The README's commands for DICOM, NIfTI and PNG run as they stand there."""

import json
import os
import shlex
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_series
from made_sources import AFFINE, voxels
from PIL import Image
from support import ROOT


def make(kind, folder):
    for number in range(3):
        image, label = voxels(number)[0], voxels(number)[1] % 2
        if kind == "dicom":
            write_series(folder / str(number), image, AFFINE, SeriesInstanceUID=f"1.2.{number}")
        for part, array in (("images", image), ("labels", label * 255), ("masks", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            if kind == "nifti" and part != "masks":
                nib.save(nib.Nifti1Image(array, AFFINE), folder / part / f"patient{number}_1.nii.gz")
            if kind == "png_pairs" and part != "labels":
                Image.fromarray(array[:, :, 0].astype(np.uint8)).save(folder / part / f"{number}.png")
    rows = "".join(f"{number}.png,p{number}\n" for number in range(3))
    (folder / "index.csv").write_text(f"file,patient\n{rows}" if kind == "png_pairs" else "file\n")


@pytest.mark.parametrize("kind", ["dicom", "nifti", "png_pairs"])
def test_the_command_runs(kind, tmp_path):
    lines = (line.strip() for line in (ROOT / "README.md").read_text().splitlines())
    (line,) = (line for line in lines if line.startswith(f"python -m data_prep.{kind} "))
    make(kind, tmp_path / "DIR")
    words = [sys.executable, *shlex.split(line)[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    content = json.loads((tmp_path / "DATA" / "datalist.json").read_text())
    assert len(content["unlabelled" if kind == "dicom" else "training"]) == (3 if kind == "dicom" else 1)
    assert result.stdout.startswith("3 scans of ")
