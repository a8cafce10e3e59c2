"""Scores of label maps: hand-made cases with known answers, and an independent brute-force computation."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from kvseg_monai.errors import InputError
from kvseg_monai.metrics import CSV_COLUMNS, score_case, summarise, write_metrics

ORGANS = ["large_bowel", "stomach"]
ISOTROPIC = (1.0, 1.0, 1.0)


def block(low, high, *, value=1, shape=(12, 12, 6)):
    volume = np.zeros(shape, dtype=np.uint8)
    volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = value
    return volume


def brute_force_hd95(first, second, spacing):
    """Maximum of the two directed 95th percentiles over surface voxels (a face neighbour lies outside)."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inner = np.ones_like(mask)
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(mask & ~inner) * np.array(spacing)

    a, b = surface(first), surface(second)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def scored(prediction, label, *, case="scan", patient="p", spacing=ISOTROPIC, class_names=ORGANS):
    return {
        "case": case,
        "patient": patient,
        **score_case(prediction, label, class_names=class_names, spacing=spacing),
    }


def test_half_overlapping_blocks():
    label, prediction = block((2, 2, 1), (6, 6, 3)), block((4, 2, 1), (8, 6, 3))  # 32 voxels each, 16 shared
    scores = score_case(prediction, label, class_names=ORGANS, spacing=(2.0, 1.0, 5.0))["classes"]["large_bowel"]
    assert scores["dice"] == pytest.approx(0.5)
    assert scores["jaccard"] == pytest.approx(16 / 48)
    assert scores["hd95_mm"] == pytest.approx(4.0)  # two voxels of 2 mm
    assert scores["label_ml"] == pytest.approx(0.32)
    assert scores["prediction_ml"] == pytest.approx(0.32)


def test_identical_maps_are_perfect():
    label = block((1, 1, 1), (5, 5, 4)) + block((7, 7, 1), (9, 9, 3), value=2)
    scores = score_case(label.copy(), label, class_names=ORGANS, spacing=ISOTROPIC)
    assert [scores[m] for m in ("dice", "jaccard", "weighted_jaccard", "hd95_mm")] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 3.0), (0.7, 2.0, 5.5)])
@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(seed, spacing):
    generator = np.random.default_rng(seed)
    label, prediction = (generator.random((7, 6, 5)) < 0.3 for _ in range(2))
    scores = score_case(prediction.astype(int), label.astype(int), class_names=["organ"], spacing=spacing)
    both, either = (prediction & label).sum(), (prediction | label).sum()
    assert scores["dice"] == pytest.approx(2 * both / (prediction.sum() + label.sum()), rel=1e-5)
    assert scores["jaccard"] == pytest.approx(both / either, rel=1e-5)
    assert scores["hd95_mm"] == pytest.approx(brute_force_hd95(prediction, label, spacing), rel=1e-5)


def test_blocks_against_brute_force_at_the_border():
    label, prediction = block((0, 0, 0), (5, 7, 6)), block((3, 1, 0), (12, 5, 4))
    found = score_case(prediction, label, class_names=["organ"], spacing=(1.5, 1.5, 3.0))["hd95_mm"]
    assert found == pytest.approx(brute_force_hd95(prediction > 0, label > 0, (1.5, 1.5, 3.0)), rel=1e-5)


def test_single_voxels_are_a_distance_apart():
    label, prediction = block((1, 1, 1), (2, 2, 2)), block((4, 5, 2), (5, 6, 3))
    scores = score_case(prediction, label, class_names=["organ"], spacing=(1.0, 1.0, 12.0))
    assert scores["dice"] == scores["jaccard"] == 0.0
    assert scores["hd95_mm"] == pytest.approx(13.0)  # 3, 4 and 12 mm


def test_class_empty_in_both_is_undefined_and_left_out():
    label = block((2, 2, 1), (6, 6, 3))
    scores = score_case(label.copy(), label, class_names=ORGANS, spacing=ISOTROPIC)
    stomach = scores["classes"]["stomach"]
    assert stomach == {"dice": None, "jaccard": None, "hd95_mm": None, "label_ml": 0.0, "prediction_ml": 0.0}
    assert scores["dice"] == 1.0


@pytest.mark.parametrize("missed", [True, False])
def test_class_empty_in_one_scores_zero_and_is_counted(missed):
    organ, nothing = block((2, 2, 1), (6, 6, 3)), np.zeros((12, 12, 6), np.uint8)
    prediction, label = (nothing, organ) if missed else (organ, nothing)
    case = scored(prediction, label)
    assert case["dice"] == case["jaccard"] == 0.0
    assert case["hd95_mm"] is None
    assert case["weighted_jaccard"] == (0.0 if missed else None)
    summary = summarise([case], ORGANS)["classes"]["large_bowel"]
    assert (summary["cases"], summary["missed"], summary["invented"]) == (1, int(missed), int(not missed))


def test_nothing_anywhere_is_undefined():
    nothing = np.zeros((4, 4, 4), np.uint8)
    scores = score_case(nothing, nothing, class_names=ORGANS, spacing=ISOTROPIC)
    assert [scores[m] for m in ("dice", "jaccard", "weighted_jaccard", "hd95_mm")] == [None] * 4


def test_weighted_jaccard_weighs_by_label_voxels():
    label = block((0, 0, 0), (10, 3, 1)) + block((0, 6, 0), (10, 7, 1), value=2)  # 30 and 10 voxels
    prediction = block((0, 0, 0), (10, 3, 1)) + block((0, 6, 0), (5, 7, 1), value=2)  # Jaccard 1 and 0.5
    scores = score_case(prediction, label, class_names=ORGANS, spacing=(1.5, 1.5, 3.0))
    assert scores["jaccard"] == pytest.approx(0.75)
    assert scores["weighted_jaccard"] == pytest.approx((30 * 1 + 10 * 0.5) / 40)


@pytest.mark.parametrize("convert", [torch.from_numpy, lambda a: torch.from_numpy(a).float(), np.float64, np.int64])
def test_arrays_and_tensors_of_any_type_agree(convert):
    label, prediction = block((2, 2, 1), (6, 6, 3)), block((4, 2, 1), (8, 6, 3), value=2)
    expected = score_case(prediction, label, class_names=ORGANS, spacing=ISOTROPIC)
    assert score_case(convert(prediction), convert(label), class_names=ORGANS, spacing=ISOTROPIC) == expected


@pytest.mark.parametrize(("bad", "text"), [(3, "3"), (-1, "-1"), (1.5, "1.5"), (math.nan, "nan")])
@pytest.mark.parametrize("role", ["prediction", "label"])
def test_undeclared_value_is_refused(role, bad, text):
    maps = {"prediction": np.zeros((4, 4, 4)), "label": np.zeros((4, 4, 4))}
    maps[role][1, 1, 1] = bad
    message = rf"the {role} holds the value\(s\) {text} but only 0 background, 1 large_bowel, 2 stomach are declared"
    with pytest.raises(InputError, match=message):
        score_case(**maps, class_names=ORGANS, spacing=ISOTROPIC)


@pytest.mark.parametrize("shape", [(4, 4, 5), (4, 4), (1, 4, 4, 4)])
def test_other_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"prediction has shape .* label \(4, 4, 4\); both must be \(X, Y, Z\)"):
        score_case(np.zeros(shape), np.zeros((4, 4, 4)), class_names=ORGANS, spacing=ISOTROPIC)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_bad_spacing_is_refused(spacing):
    with pytest.raises(InputError, match="three positive sizes in mm"):
        score_case(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), class_names=ORGANS, spacing=spacing)


@pytest.mark.parametrize("class_names", ["stomach", [], ["stomach", "stomach"]])
def test_bad_class_names_are_refused(class_names):
    with pytest.raises(InputError, match="list of distinct foreground names"):
        score_case(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), class_names=class_names, spacing=ISOTROPIC)


@pytest.fixture
def summary():
    """Case a: large bowel 0.5 and no stomach; case b: large bowel missed, stomach perfect."""
    bowel, shifted = block((2, 2, 1), (6, 6, 3)), block((4, 2, 1), (8, 6, 3))
    stomach = block((8, 8, 1), (10, 10, 3), value=2)  # 8 voxels against 32
    cases = [scored(shifted, bowel, case="a", patient="p1"), scored(stomach, bowel + stomach, case="b", patient="p2")]
    return summarise(cases, ORGANS)


def test_summary_averages_cases_then_classes(summary):
    bowel, stomach = (summary["classes"][name] for name in ORGANS)
    assert bowel["dice"] == pytest.approx(0.25)
    assert bowel["hd95_mm"] == pytest.approx(2.0)  # only case a has one
    assert (bowel["cases"], bowel["missed"], bowel["invented"]) == (2, 1, 0)
    assert (stomach["dice"], stomach["cases"]) == (1.0, 1)
    assert summary["mean"]["dice"] == pytest.approx((0.25 + 1) / 2)
    assert summary["mean"]["jaccard"] == pytest.approx((1 / 6 + 1) / 2)
    assert summary["mean"]["hd95_mm"] == pytest.approx(1.0)
    assert summary["mean"]["weighted_jaccard"] == pytest.approx((1 / 3 + 8 / 40) / 2)
    assert "left out" in summary["protocol"]


def test_no_cases_are_refused():
    with pytest.raises(InputError, match="no case was scored"):
        summarise([], ORGANS)


def test_files_hold_the_summary(summary, tmp_path):
    write_metrics(summary, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.csv", "metrics.json"]
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


def test_output_in_the_way_is_refused(tmp_path, summary):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder but a file"):
        write_metrics(summary, tmp_path / "file")
