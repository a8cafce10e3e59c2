"""The README's plain commands are those of the Makefile; its commands for DICOM run as they stand there."""

import shlex
import shutil
import subprocess

import nibabel as nib
import pytest
import torch
from dicom_files import write_series
from seg_objects import image, labels, oblique, validate
from support import ROOT, run_here

import kvseg_monai
from kvseg_monai.cli.demo import FULL, SMALL, STEPS
from kvseg_monai.dicom.listing import volume_at


def planned(target: str) -> list[str]:
    """What make would run for a target in an empty checkout, without the environment's folder."""
    line = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    text = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", "")
    commands = (" ".join(command.split()) for command in text.splitlines())
    return [command.removeprefix(".venv/bin/") for command in commands if command.startswith(".venv/bin/python")]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_readme_says_what_make_runs():
    readme = [" ".join(line.split()) for line in (ROOT / "README.md").read_text().splitlines()]
    commands = [command.replace("--quiet ", "") for command in planned("test")]
    assert len(commands) >= 3
    assert [command for command in commands if command not in readme] == []


def test_the_readme_says_what_the_demo_runs():
    readme = [
        shlex.split(line) for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    python")
    ]
    lines = [step.words(target="demo", bundle="bundles/setr_kv_segmentation", **FULL) for step in STEPS]
    assert [line for line in lines if ["python", "-m", *line] not in readme] == []
    assert len(lines) == 6


def test_make_label_takes_the_options_of_the_demo():
    (small,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("SMALL = ")]
    assert shlex.split(small.replace("\\#", "#"))[2:] == SMALL.split()


def section(title: str) -> list[str]:
    """The commands in a section of the README."""
    text = (ROOT / "README.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def test_the_commands_from_dicom_and_back_run_word_for_word(tmp_path):
    """In a copy of what they need, with untrained weights."""
    bundle = tmp_path / "bundles" / "setr_kv_segmentation"
    for name in (bundle.name, "examples"):
        shutil.copytree(ROOT / "bundles" / name, bundle.parent / name, ignore=shutil.ignore_patterns("models", "eval"))
    network = kvseg_monai.SETR(1, 4, 256, attention="kv", size="tiny", decoder="pup")
    (bundle / "models").mkdir()
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    write_series(tmp_path / "SCANS" / "deep", image(), oblique())
    nib.save(nib.Nifti1Image(labels(), oblique()), tmp_path / "MAP.nii.gz")
    commands = section("From the scanner and back: DICOM")
    assert [line.split()[2] for line in commands] == ["monai.bundle", "kvseg_monai.dicom_seg"]
    for line in commands:
        result = run_here(shlex.split(line), tmp_path)
        assert result.returncode == 0, result.stderr[-3000:]
    (made,) = (tmp_path / "SEGS").glob("*.dcm")
    assert made.name == f"{volume_at(tmp_path / 'SCANS').name}.dcm"
    for path in (made, tmp_path / "SEG.dcm"):
        validate(path)
