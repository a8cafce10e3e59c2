"""The table of the study of another scanner: what is lost is split, and an arm that halves the rest is named."""

import importlib.util

import pandas as pd
import pytest
from support import ROOT

FILE = ROOT / "bundles" / "studies" / "recipe" / "scanner.py"


@pytest.fixture(scope="module")
def scanner():
    spec = importlib.util.spec_from_file_location("scanner", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(**arms: tuple[float, float, float]) -> pd.DataFrame:
    """Three seeds and four patients of each set, around the mean of an arm."""
    rows = [
        {"net": net, "seed": seed, "set": name, "patient": f"p{patient}", "dice": mean + 0.01 * seed + 0.02 * patient}
        for net, means in arms.items()
        for name, mean in zip(("home", "native", "rescaled"), means, strict=True)
        for seed in (-1, 0, 1)
        for patient in (-1.5, -0.5, 0.5, 1.5)
    ]
    return pd.DataFrame(rows)


def test_the_loss_is_split_into_scale_and_rest(scanner):
    made = scanner.table(
        scores(base=(0.9, 0.5, 0.7), good=(0.897, 0.6, 0.82), dear=(0.88, 0.6, 0.86), idle=(0.9, 0.5, 0.7))
    )
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in made.splitlines()
        if (cells := line.split("|"))
    }
    assert rows["base"] == ["0.900", "0.500", "0.700", "0.200", "0.200", "", "", ""]
    assert rows["good"][3:5] == ["0.220", "0.077"]
    assert rows["good"][5] == "-0.003 [-0.003, -0.003]"
    assert rows["good"][6].startswith("-0.123 [")
    assert [rows[net][-1] for net in ("good", "dear", "idle")] == ["yes", "no", "no"]  # dear costs 0.02 at home


def test_sets_are_known_by_their_patients(scanner, tmp_path):
    of_arm = "parameters,epochs,best_epoch,training_seconds"
    lines = [f"net,attention,seed,patient,class,dice,volumes,{of_arm}"]
    for patient in ("SC-HF-I-01", "native-patient001", "rescaled-patient001"):
        lines += [f"base,kv,0,{patient},{name},0.51239,3,1,1,1,1" for name in ("left_ventricle", "mean")]
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    found = scanner.read_scores(tmp_path)
    assert found["set"].tolist() == ["home", "native", "rescaled"]
    assert found["patient"].tolist() == ["SC-HF-I-01", "patient001", "patient001"]
    assert found["dice"].tolist() == [0.5124] * 3
