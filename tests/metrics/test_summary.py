"""Averages of scored cases and the files that hold them: hand-made cases with known answers."""

import csv
import json
import math

import numpy as np
import pytest
from support import block, names_in

from kvseg_monai.errors import InputError
from kvseg_monai.metrics.case import score_case
from kvseg_monai.metrics.summary import CSV_COLUMNS, read_metrics, summarise, write_metrics
from kvseg_monai.utils.old_names import METRICS

ORGANS = ["large_bowel", "stomach"]


def scored(prediction, label, *, case="scan", patient="p"):
    return {
        "case": case,
        "patient": patient,
        **score_case(prediction, label, class_names=ORGANS, spacing=(1.0, 1.0, 1.0)),
    }


@pytest.mark.parametrize("is_predicted", [False, True])
def test_class_empty_in_one_scores_zero_and_is_counted(is_predicted):
    organ, nothing = block((2, 2, 1), (6, 6, 3)), np.zeros((12, 12, 6), np.uint8)
    prediction, label = (organ, nothing) if is_predicted else (nothing, organ)
    case = scored(prediction, label)
    assert case["dice"] == case["jaccard"] == 0.0
    assert case["hd95_mm"] is None
    assert case["weighted_jaccard"] == (None if is_predicted else 0.0)
    summary = summarise([case], ORGANS)["classes"]["large_bowel"]
    assert (summary["cases"], summary["false_negatives"], summary["false_positives"]) == (
        *(1, int(not is_predicted), int(is_predicted)),
    )


@pytest.fixture
def summary():
    """Case a: large bowel 0.5 and no stomach; case b: large bowel not predicted, stomach perfect."""
    bowel, shifted = block((2, 2, 1), (6, 6, 3)), block((4, 2, 1), (8, 6, 3))
    stomach = block((8, 8, 1), (10, 10, 3), value=2)  # 8 voxels against 32
    cases = [scored(shifted, bowel, case="a", patient="p1"), scored(stomach, bowel + stomach, case="b", patient="p2")]
    return summarise(cases, ORGANS)


def test_summary_averages_cases_then_classes(summary):
    bowel, stomach = (summary["classes"][name] for name in ORGANS)
    assert bowel["dice"] == pytest.approx(0.25)
    assert bowel["hd95_mm"] == pytest.approx(2.0)  # only case a has one
    assert (bowel["cases"], bowel["false_negatives"], bowel["false_positives"]) == (2, 1, 0)
    assert (stomach["dice"], stomach["cases"]) == (1.0, 1)
    assert summary["mean"]["dice"] == pytest.approx((0.25 + 1) / 2)
    assert summary["mean"]["jaccard"] == pytest.approx((1 / 6 + 1) / 2)
    assert summary["mean"]["hd95_mm"] == pytest.approx(1.0)
    assert summary["mean"]["weighted_jaccard"] == pytest.approx((1 / 3 + 8 / 40) / 2)
    assert "left out" in summary["protocol"]


def test_summary_averages_every_protocol(summary):
    """Two slices of six have organs."""
    score = 0.4 * 0.5 + 0.6 * (1 - 2 / 12 / math.sqrt(3))  # case a; in case b an organ that is not predicted scores 0
    bowel = {
        "per_volume": (0.25, score / 2),
        "all_slices": ((5 + 4) / 12, (0.4 * 5 / 6 + 0.6 * (1 - 2 / 12 / math.sqrt(3)) + 0.4 * 4 / 6) / 2),
        "non_empty_slices": (0.25, score / 2),
    }
    assert set(summary["protocols"]) == set(bowel)
    for name, (dice, kaggle) in bowel.items():
        found = summary["protocols"][name]
        assert found["classes"]["large_bowel"]["dice"] == pytest.approx(dice)
        assert found["classes"]["large_bowel"]["kaggle"] == pytest.approx(kaggle)
        assert found["classes"]["stomach"]["dice"] == 1.0
        assert found["mean"]["dice"] == pytest.approx((dice + 1) / 2)
        assert set(found["mean"]) == {"dice", "jaccard", "weighted_jaccard", "hd95_mm", "kaggle"}
        assert "absent from both" in found["protocol"] or "As all slices" in found["protocol"]
    whole = summary["protocols"]["per_volume"]["mean"]
    assert summary["mean"] == {metric: whole[metric] for metric in summary["mean"]}


def test_summary_has_the_kaggle_score(summary):
    bowel, stomach = (summary["kaggle"]["classes"][name] for name in ORGANS)
    assert bowel["dice"] == pytest.approx(0.25)
    assert bowel["hausdorff"] == pytest.approx((2 / 12 / math.sqrt(3) + 1) / 2)
    assert stomach == {"score": 1.0, "dice": 1.0, "hausdorff": 0.0}
    for scores in (bowel, summary["kaggle"]["mean"]):
        assert scores["score"] == pytest.approx(0.4 * scores["dice"] + 0.6 * (1 - scores["hausdorff"]))
    assert "0.4 Dice + 0.6 (1 - Hausdorff)" in summary["kaggle"]["protocol"]


def test_no_cases_are_refused():
    with pytest.raises(InputError, match="no case was scored"):
        summarise([], ORGANS)


def test_files_hold_the_summary(summary, tmp_path):
    write_metrics(summary, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert names_in(folder) == ["metrics.csv", "metrics.json"]
    text = (folder / "metrics.json").read_text()
    assert json.loads(text) == summary
    assert "NaN" not in text
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [(r["case"], r["class"]) for r in rows] == [(c, k) for c in "ab" for k in (*ORGANS, "mean")]
    assert float(rows[0]["dice"]) == pytest.approx(0.5)
    assert (rows[1]["dice"], rows[1]["label_ml"]) == ("", "0.0")  # no stomach in case a
    assert float(rows[5]["weighted_jaccard"]) == pytest.approx(0.2)
    assert float(rows[0]["kaggle_dice"]) == float(rows[2]["kaggle_dice"]) == pytest.approx(0.5)
    assert (rows[1]["kaggle_score"], rows[1]["dice_all_slices"], rows[1]["dice_non_empty_slices"]) == ("", "1.0", "")
    assert float(rows[2]["dice_all_slices"]) == pytest.approx((5 / 6 + 1) / 2)
    assert float(rows[5]["weighted_jaccard_non_empty_slices"]) == pytest.approx(0.2)


def test_metrics_of_an_older_version_are_read_under_the_new_names(summary, tmp_path):
    write_metrics(summary, tmp_path)
    file, old = tmp_path / "metrics.json", {new: old for old, new in METRICS.items()}
    content = json.loads(file.read_text())
    for name, scores in content["classes"].items():
        content["classes"][name] = {old.get(key, key): value for key, value in scores.items()}
    file.write_text(json.dumps(content))
    assert old["false_negatives"] in file.read_text()
    assert read_metrics(file) == summary


def test_output_in_the_way_is_refused(tmp_path, summary):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder but a file"):
        write_metrics(summary, tmp_path / "file")
