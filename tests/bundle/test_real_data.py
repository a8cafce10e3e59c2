"""The bundles on real MR data; skipped where there is none."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from skimage.io import imread
from support import BUNDLES, run

CLASSES = ("large_bowel", "small_bowel", "stomach")


def make_slices(source: Path, target: Path, count: int) -> Path:
    """Turn labelled slices into one-slice volumes: ``count`` with two organs or more to train on, one to validate."""
    with (source / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    narrow = [row for row in rows if row["width"] == "266"]  # fits the canvas: nothing is tiled
    training = [row for row in narrow if sum(int(row[f"px_{name}"]) > 100 for name in CLASSES) >= 2][:count]
    held_out = next(row for row in rows if row not in training)
    datalist: dict = {"training": [], "validation": []}
    for section, row in [("training", row) for row in training] + [("validation", held_out)]:
        step = float(row["spacing_mm"])
        entry = {"patient": section}  # what matters here is that the slices are learnt, not to whom they belong
        for key, folder in (("image", "images"), ("label", "masks")):
            entry[key] = f"{folder}_{Path(row['file']).stem}.nii.gz"
            volume = nib.Nifti1Image(imread(source / folder / row["file"]).T[..., None], np.diag([-step, -step, 3, 1]))
            nib.save(volume, target / entry[key])
        datalist[section].append(entry)
    (target / "datalist.json").write_text(json.dumps(datalist))
    return target


@pytest.mark.slow
def test_a_tiny_setr_kv_learns_eight_real_slices_by_heart(real_data, tmp_path):
    """Dice 0.95 on the original grid shows that image, label, geometry and score belong together."""
    (tmp_path / "data").mkdir()
    dataset = make_slices(real_data / "uwm_slices", tmp_path / "data", 8)
    options = ["--image_size", "[272,272]"]
    still = [f"--train#batch_transforms#{number}#prob" for number in range(4)]
    training = [
        "--max_epochs",
        "340",
        "--val_interval",
        "340",
        "--learning_rate",
        "0.0015",
        "--volumes_per_batch",
        "8",
        "--slices_per_volume",
        "1",
    ]
    training += [word for option in still for word in (option, "0.0")]
    for name, extra in (("train", training), ("evaluate", ["--section", "training"])):
        result = run(BUNDLES[1], name, tmp_path, dataset, *options, *extra)
        assert result.returncode == 0, result.stderr[-3000:]
    scores = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    print(scores["mean"], scores["classes"])
    assert len(scores["cases"]) == 8
    assert scores["mean"]["dice"] >= 0.95
