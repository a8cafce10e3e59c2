"""Another scanner: data and table of ``scanner.yaml``, trained on Sunnybrook and tested on ACDC as well.

``prepare`` makes one folder of single slices that show the left ventricle, in three sets of patients: *home*,
Sunnybrook's; *native*, ACDC's with a pixel as large as Sunnybrook's; *rescaled*, the same ACDC slices with pixels so
large that the median diameter of the ventricle is Sunnybrook's. How large Sunnybrook's pixel is, is not known: it is
called 1 mm.

``table`` splits what a training loses on ACDC in two: *scale*, what rescaling wins back, and *rest*, what it does not.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from data_prep.png_pairs.source import main as prepare_png_pairs
from kvseg_monai.data.datalist import DATALIST, SECTIONS, patient_of, read_datalist
from kvseg_monai.data.nifti import read_volume, write_volume
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.study.results import read_rows
from kvseg_monai.study.schema import SplitFile, read_table
from kvseg_monai.study.statistics import RESAMPLES, difference
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.geometry import radiological_affine

HOME, NATIVE, RESCALED = SETS = ("home", "native", "rescaled")
LEFT_VENTRICLE = 3  # in ACDC
LABELS = {"0": "background", "1": "left_ventricle"}
SPLIT = Path(__file__).with_name("split_scanner.json")
BASE, COST = "base", 0.005  # the arm without artefacts; what one may cost at home


def prepare(sunnybrook: Path, acdc: Path, target: Path) -> None:
    """Write the slices and ``datalist.json`` into ``target``; what is there already is kept."""
    labels = ",".join(f"{value}={name}" for value, name in LABELS.items())
    places = "--source", str(sunnybrook), "--target", str(target / HOME)
    code = prepare_png_pairs([*places, "--labels", labels, "--spacing", "1"])
    if code:
        raise InputError(f"{sunnybrook} could not be prepared whole; see above")
    home = [entry for section in SECTIONS for entry in read_datalist(target / HOME).get(section, [])]
    ratio = _median([read_volume(target / HOME / entry["label"])[0] == 1 for entry in home]) / _median(
        [label for _, _, label in _acdc_slices(acdc, whole=True)]
    )
    print(f"ACDC's pixels are taken for {ratio:.3f} mm where they are rescaled")
    cases = [{**entry, "image": f"{HOME}/{entry['image']}", "label": f"{HOME}/{entry['label']}"} for entry in home]
    for name, image, label in tqdm(list(_acdc_slices(acdc)), unit="slice"):
        for folder, spacing in ((NATIVE, 1.0), (RESCALED, ratio)):
            affine = radiological_affine((spacing, spacing, 1.0), towards_feet=True)
            case = {"patient": f"{folder}-{name.split('_')[0]}"}
            for key, voxels in (("image", image), ("label", label.astype(np.uint8))):
                case[key] = f"{folder}/{key}s/{name}.nii.gz"
                if not (target / case[key]).is_file():
                    write_volume(target / case[key], voxels[..., None], affine)
            cases.append(case)
    write_text(target / DATALIST, json.dumps({"labels": LABELS, "training": cases}, indent=1) + "\n")


def _acdc_slices(folder: Path, *, whole: bool = False) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image and left ventricle (X, Y) of each slice that shows it: of all patients, or of the split's."""
    wanted = set(read_table(SPLIT, SplitFile).test)
    for entry in read_datalist(folder)["training"]:
        if whole or f"{NATIVE}-{patient_of(entry)}" in wanted:
            image, label = (read_volume(folder / entry[key])[0] for key in ("image", "label"))
            for place in np.flatnonzero((label == LEFT_VENTRICLE).any((0, 1))):
                name = f"{Path(entry['image']).name.split('.')[0]}_{place:02d}"
                yield name, image[..., place], label[..., place] == LEFT_VENTRICLE


def _median(masks: list[np.ndarray]) -> float:
    """Return the median diameter of areas, in pixels, each as if it were round."""
    return float(np.median([2 * math.sqrt(mask.sum() / math.pi) for mask in masks]))


def read_scores(study: Path) -> pd.DataFrame:
    """Return Dice of the left ventricle for each arm, seed, set and patient."""
    rows = read_rows(study / "results.csv").query("`class` == 'left_ventricle'")
    cut = rows["patient"].str.extract(rf"^({NATIVE}|{RESCALED})-(.*)$")
    rows = rows.assign(set=cut[0].fillna(HOME), patient=cut[1].fillna(rows["patient"]))
    return rows[["net", "seed", "set", "patient", "dice"]].round({"dice": 4}).reset_index(drop=True)


def table(scores: pd.DataFrame) -> str:
    """Return the table in Markdown: a row for each arm, with its differences to the arm without artefacts."""
    lines = [
        "| arm | home | ACDC | ACDC, rescaled | scale | rest | home, to base | rest, to base | halves the rest? |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    means = scores.groupby(["net", "set"])["dice"].mean().unstack()
    base = means.loc[BASE]
    for net in [BASE, *(net for net in scores["net"].unique() if net != BASE)]:
        home, native, rescaled = (means.loc[net, name] for name in SETS)
        cells = [home, native, rescaled, rescaled - native, home - rescaled]
        row = [net, *(f"{cell:.3f}" for cell in cells)]
        if net != BASE:
            changes = [_changes(scores, net, name) for name in (HOME, RESCALED)]
            at_home, rest = difference(changes[0]), _difference_of(*changes)
            halves = home - rescaled <= (base[HOME] - base[RESCALED]) / 2 and at_home.mean >= -COST
            row += [_with_interval(at_home.mean, at_home.low, at_home.high), _with_interval(*rest)]
            row.append("yes" if halves else "no")
        lines.append("| " + " | ".join([*row, "", "", ""][:9]) + " |")
    return "\n".join(lines) + "\n"


def _changes(scores: pd.DataFrame, net: str, name: str) -> np.ndarray:
    """Return what an arm scores more than the one without artefacts, (S, P), paired by seed and patient."""
    of_set = scores[scores["set"] == name].pivot_table(index=["net", "seed"], columns="patient", values="dice")
    seeds = of_set.loc[net].index.intersection(of_set.loc[BASE].index)
    return (of_set.loc[net].loc[seeds] - of_set.loc[BASE].loc[seeds]).to_numpy()


def _difference_of(home: np.ndarray, rescaled: np.ndarray) -> tuple[float, float, float]:
    """Return the change of the rest, and its 95 % interval: seeds, and the patients of either set, drawn anew."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        seeds = rng.integers(len(home), size=len(home))
        means = [
            values[seeds][:, rng.integers(values.shape[1], size=values.shape[1])].mean() for values in (home, rescaled)
        ]
        drawn.append(means[0] - means[1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(home.mean() - rescaled.mean()), float(low), float(high)


def _with_interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> int:
    """Parse the command line; prepare, or write ``scanner.csv`` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    options = commands.add_parser("prepare", help="make the slices")
    for name in ("sunnybrook", "acdc", "target"):
        options.add_argument(f"--{name}", type=Path, required=True)
    options = commands.add_parser("table", help="write scanner.csv and print the table")
    options.add_argument("--study", type=Path, required=True, help="folder of the study, with results.csv")
    options.add_argument("--target", type=Path, required=True, help="folder of scanner.csv and scanner.md")
    given = parser.parse_args()
    if given.command == "prepare":
        prepare(given.sunnybrook, given.acdc, given.target)
        return 0
    scores = read_scores(given.study)
    write_text(given.target / "scanner.csv", scores.to_csv(index=False, lineterminator="\n"))
    write_text(given.target / "scanner.md", text := table(scores))
    print(text)
    return 0


if __name__ == "__main__":
    run_command(main)
