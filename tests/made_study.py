"""A study whose arms were never trained: their files hold made-up numbers, for tests of what is made of them."""

import json
from pathlib import Path

import numpy as np
import yaml

from kvseg_monai.study import results
from kvseg_monai.study.plan import read_study

PARAMETERS = {"qkv": 2_900_000, "kv": 2_680_000, "kv_pos": 2_680_300}
EFFECT = {"qkv": 0.0, "kv": 0.0, "kv_pos": -0.04}
CLASSES = {"left_ventricle": 0.1, "myocardium": -0.1}  # name -> how much easier than the mean


def make_study(folder: Path, *, nets=("setr", "cvt"), seeds=3, patients=16, **changes) -> Path:
    """Write a study file and its finished arms; return the file. `kv` is as good as `qkv`, `kv_pos` is worse."""
    names = [f"patient{number:03}" for number in range(patients)]
    split = {"training": ["a", "b"], "validation": ["c"], "test": names}
    (folder / "split.json").write_text(json.dumps(split))
    study = folder / "study.yaml"
    table = {"attention": list(EFFECT)}
    content = {"split": "split.json", "output_dir": "out", "nets": dict.fromkeys(nets, table), "margin": 0.01}
    study.write_text(yaml.safe_dump({**content, "seeds": list(range(seeds)), **changes}))
    for arm in read_study(study).arms:
        _make_arm(folder / "out" / "arms" / arm.name, arm, names)
    return study


def _make_arm(folder: Path, arm, patients: list[str]) -> None:
    folder.mkdir(parents=True)
    identity = {"net": arm.net, "attention": arm.attention, "seed": arm.seed}
    rng = np.random.default_rng([arm.seed, *arm.name.encode()])
    hard = np.random.default_rng(len(arm.net)).normal(0.7, 0.08, len(patients))  # the same for all arms of a net
    scores = hard + EFFECT[arm.attention] + rng.normal(0, 0.004, len(patients))
    record = {
        **identity,
        "parameters": PARAMETERS[arm.attention],
        **{"epochs": 8, "best_epoch": 6, "training_seconds": 61.5, "evaluation_seconds": 5.0},
        **{"device": "A processor", "versions": {"kvseg_monai": "0.1.0", "Commit": "0123456789ab", "torch": "2.13.0"}},
    }
    cases = [_case(patient, score) for patient, score in zip(patients, scores, strict=True)]
    metrics = {"cases": cases, "classes": dict.fromkeys(CLASSES)}
    results.write_rows(folder / results.FILE, results.rows_of(metrics, record))
    curve = [f"{epoch},{min(0.8, epoch / 8) + rng.normal(0, 0.02)},7.5" for epoch in range(1, 9)]
    (folder / "curve.csv").write_text("\n".join(["epoch,val_mean_dice,seconds", *curve]) + "\n")
    (folder / results.CONFIGURATION).write_text(json.dumps({**identity, "overrides": {}}))
    (folder / results.RECORD).write_text(json.dumps(record))


def _case(patient: str, jaccard: float) -> dict:
    scores = {"jaccard": jaccard, "dice": 2 * jaccard / (1 + jaccard), "hd95_mm": 20 * (1 - jaccard)}
    return {
        "patient": patient,
        **scores,
        "weighted_jaccard": jaccard + 0.01,
        "classes": {name: {**scores, "jaccard": jaccard + shift} for name, shift in CLASSES.items()},
    }
