"""Hippocampus thinned to 4 mm along each axis: the plan finds the plane, and what a training scores there.

    python bundles/studies/recipe/thinned.py --dataset_dir HIPPOCAMPUS --target thinned

For each of the patient's axes every fourth slice across it is kept, image and label alike, so that the voxels are 4 mm
along it and 1 mm along the others. Each data set is planned, trained and scored by the plain lines that are printed;
with ``--slice_axis axial`` each is cut axially, as before there was a choice. ``--as PIR SLA`` stores the same volumes
once more, with their axes in another order: the scores must be the same to the last digit. What is done is not done
again.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from kvseg_monai.cli import plain
from kvseg_monai.data import cases
from kvseg_monai.data.nifti import read_volume, write_volume
from kvseg_monai.metrics.summary import read_metrics
from kvseg_monai.utils.geometry import PLANES, array_axes
from kvseg_monai.utils.overlap import refuse_overlap

STEP = 4
BUNDLE = Path(__file__).resolve().parents[2] / "transunet_kv_segmentation"
STEADY = ("--gradient_clip", "1", "--warmup_steps", "60")  # without them a class may never be predicted
TEST = 5  # one in so many patients


def thin(source: Path, target: Path, *, axis: int, axcodes: str | None) -> None:
    """Keep every fourth slice across one of the patient's axes, from the second on; store the axes in an order."""
    voxels, affine = read_volume(source)
    along = array_axes(affine)[axis]
    kept = tuple(slice(1, None, STEP) if own == along else slice(None) for own in range(3))
    step = np.diag([STEP if own == along else 1.0 for own in range(3)])
    first = affine @ [*(1.0 if own == along else 0.0 for own in range(3)), 1.0]
    image = nib.Nifti1Image(voxels[kept], nib.affines.from_matvec(affine[:3, :3] @ step, first[:3]))
    if axcodes:
        image = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(axcodes)))
    write_volume(target, np.ascontiguousarray(image.dataobj), image.affine)


def make_data(dataset_dir: Path, target: Path, *, axis: int, axcodes: str | None, patients: int) -> None:
    """Write a thinned data set of the first patients, one in five to test on; training holds out a fifth itself."""
    found = [case for section in ("training", "validation") for case in cases(dataset_dir, section)]
    names = sorted({case["patient"] for case in found})[:patients]
    datalist: dict[str, object] = {"labels": {"0": "background", "1": "anterior", "2": "posterior"}}
    lists: dict[str, list[dict[str, str]]] = {"training": [], "test": []}
    for case in sorted((case for case in found if case["patient"] in names), key=lambda case: case["image"]):
        section = "test" if names.index(case["patient"]) % TEST == TEST - 1 else "training"
        entry = {"patient": case["patient"]}
        for key in ("image", "label"):
            entry[key] = f"{key}s/{Path(case[key]).name}"
            thin(Path(case[key]), target / entry[key], axis=axis, axcodes=axcodes)
        lists[section].append(entry)
    (target / "datalist.json").write_text(json.dumps({**datalist, **lists}, indent=1))


def run(module: str, *words: str) -> None:
    """Print a plain line and run it."""
    print(plain.show(module, words), flush=True)
    subprocess.run([sys.executable, "-m", module, *words], check=True, stderr=subprocess.DEVNULL)


def score(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Plan, train and evaluate what lies in ``folder/data``; return the Dice of each class and their mean."""
    if not (folder / "data" / "plan.json").is_file():
        run("kvseg_monai.plan", str(folder / "data"))
    results = folder / f"{options.slice_axis or 'planned'}-{options.seed}"
    common = ["--bundle_root", str(results), "--dataset_dir", str(folder / "data")]
    if not (results / "eval" / "metrics.json").is_file():
        shutil.rmtree(results, ignore_errors=True)
        train = ["--network_def#size", "tiny", "--max_epochs", "1", "--steps_per_epoch", str(options.steps)]
        train += [*STEADY, "--seed", str(options.seed)]
        train += ["--slice_axis", options.slice_axis] if options.slice_axis else []
        run("monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "train.json"), *common, *train)
        run("monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "evaluate.json"), *common)
    metrics = read_metrics(results / "eval" / "metrics.json")
    return {**{name: row["dice"] for name, row in metrics["classes"].items()}, "mean": metrics["mean"]["dice"]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do it for each axis, and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_dir", type=Path, required=True, help="hippocampus, with a datalist.json")
    parser.add_argument("--target", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--patients", type=int, default=30, help="how many (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of the training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    parser.add_argument("--slice_axis", help="of the training, in place of the plan's")
    parser.add_argument("--planes", nargs="+", default=list(PLANES), choices=PLANES, help="that are thinned across")
    parser.add_argument("--as", dest="axcodes", nargs="*", default=[], help="also with the axes in these orders")
    options = parser.parse_args(arguments)
    refuse_overlap(sources={"dataset_dir": options.dataset_dir}, targets={"target": options.target})
    rows = []
    for plane in options.planes:
        for axcodes in (None, *options.axcodes):
            folder = options.target / f"{plane}{f'-{axcodes}' if axcodes else ''}"
            if not (folder / "data" / "datalist.json").is_file():
                axis = PLANES.index(plane)
                make_data(options.dataset_dir, folder / "data", axis=axis, axcodes=axcodes, patients=options.patients)
            scores = score(folder, options)
            plan = json.loads((folder / "data" / "plan.json").read_text())["settings"]["slice_axis"]["value"]
            rows.append(f"{folder.name:<14}{plan:<10}" + "".join(f"{value:>14.10f}" for value in scores.values()))
    print("\nthinned       planned    " + "".join(f"{name:>14}" for name in scores))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
